"""An answer with all that models write: headings, code, a table, formulas, tasks, folds, and other scripts."""

from __future__ import annotations

ANSWER = r"""# Cleaning a messy sales table

Before you aggregate, **three things** need attention: the `amount` column is text, dates come in *two* formats, and
`region` is spelled five ways. 请先看**“地区”**一列。

## 1. What I would check first

1. Count missing values per column
2. Look at the distinct values of `region`
   - `north`, `North `, `NORTH` are the same place
   - `n/a` is not a region
3. Parse the dates with an explicit format

> **Note:** `pd.to_datetime(..., errors="coerce")` turns what it cannot read into `NaT`; count those first.

## 2. The code

```python
import pandas as pd

def clean(df: pd.DataFrame) -> pd.DataFrame:
    '''Return a tidy copy of the raw sales table.'''
    out = df.copy()
    out["amount"] = pd.to_numeric(out["amount"].astype(str).str.replace(r"[^0-9.\-]", "", regex=True), errors="coerce")
    out["date"] = pd.to_datetime(out["date"], errors="coerce", format="mixed")
    return out.dropna(subset=["amount"])  # 1 row = 1 order
```

### What the numbers say

| Region | Orders | Revenue | Share | Comment |
| --- | ---: | ---: | ---: | --- |
| north | 612 | 48,211.50 | 31.2% | steady growth<br>since March |
| south | 498 | 39,870.10 | 25.8% | two outliers above 5,000 |
| east | 455 | 35,012.00 | 22.6% | CO<sub>2</sub> and m<sup>2</sup> |

The share of region $r$ is $s_r = \frac{x_r}{\sum_i x_i}$, and

$$\sigma^2 = \frac{1}{n-1}\sum_{i=1}^n (x_i - \bar{x})^2$$

- [x] missing values counted
- [ ] outliers inspected

שלום עולם: הטבלה `df` נקייה עכשיו.

<details><summary>More</summary>Hidden text</details>

See the [pandas guide](https://pandas.pydata.org/docs/). Press <kbd>Shift</kbd>+<kbd>Enter</kbd>.
"""
