"""The stored source of a cell: everything but the keys in it."""

from __future__ import annotations

import pytest

from promptkit_nb.notebook.cells import without_keys


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("%env OPENAI_API_KEY=0123abcd\n%chat Hi", "%env OPENAI_API_KEY=[key]\n%chat Hi"),
        ("  %set_env MISTRAL_API_KEY 0123abcd", "  %set_env MISTRAL_API_KEY [key]"),
        ("os.environ['AZURE_API_KEY'] = '0123 abcd'", "os.environ['AZURE_API_KEY'] = '[key]'"),
        ('os.environ.setdefault("GROQ_API_KEY", "0123abcd")', 'os.environ.setdefault("GROQ_API_KEY", "[key]")'),
        ('OpenAIProvider("m", api_key = f"0123\'abcd")', 'OpenAIProvider("m", api_key = f"[key]")'),
        ('{"Authorization": "Bearer 0123abcd", "a": "b"}', '{"Authorization": "[key]", "a": "b"}'),
        ("RedisStore(url, password='0123abcd')\n%chat Hi", "RedisStore(url, password='[key]')\n%chat Hi"),
        ("%chat_setup --store redis://me:0123abcd@host:6379/0", "%chat_setup --store redis://me:[key]@host:6379/0"),
        ("%chat_setup --store redis://:0123abcd@host", "%chat_setup --store redis://:[key]@host"),
        ('p = Provider(api_key="""0123abcd""")', 'p = Provider(api_key="""[key]""")'),
        ('api_key: str = "0123abcd"', 'api_key: str = "[key]"'),
        ('api_key = (\n    rb"0123abcd"\n)', 'api_key = (\n    rb"[key]"\n)'),
        (r"key='01\'23abcd'", "key='[key]'"),
        ("%env GROQ_API_KEY=01 23abcd\n%chat Hi", "%env GROQ_API_KEY=[key]\n%chat Hi"),
        ("!export GROQ_API_KEY=0123abcd && run", "!export GROQ_API_KEY=[key] && run"),
        ("!A=1 GROQ_API_KEY=0123abcd python x.py", "!A=1 GROQ_API_KEY=[key] python x.py"),
        ("%%bash\nexport GROQ_API_KEY=0123abcd\nrun", "%%bash\nexport GROQ_API_KEY=[key]\nrun"),
        ("!export GROQ_API_KEY='01 23abcd'", "!export GROQ_API_KEY='[key]'"),
        ("key = 'sk-proj-0123456789'\n# or sk-0123456789", "key = '[key]'\n# or [key]"),
    ],
)
def test_keys_are_removed(typed: str, kept: str) -> None:
    """Keys are removed in all the forms in which people write them."""
    assert without_keys(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "%%chat\nWhat is a key? And a token: is it a word?",
        "%%chat --context-tokens 4000 -m gpt-4o\nHow many tokens = how many words?",
        "%env PROMPTKIT_MODEL=gpt-4o-mini\nmax_tokens = '4000'",
        "%%chat\nSee http://localhost:8888/lab and mail me@example.com",
        "%chat_setup --base-url http://localhost:11434/v1",
        "keys = ['a', 'b']\nd['key'] = value",
    ],
)
def test_everything_else_is_unchanged(typed: str) -> None:
    """The source identifies the cell."""
    assert without_keys(typed) == typed


@pytest.mark.parametrize(
    "piece", ["key", "key = '", "%env KEY\n", "\n", "://a:", "%env key", " ", "!a ", "!key", "key: a "]
)
def test_long_cells_are_fast(piece: str) -> None:
    """A cell of a megabyte is searched in linear time."""
    assert without_keys(f"%env {piece * 300_000}") is not None
