"""A wrong setting stops the start with one line that names it."""

from pathlib import Path

import pytest

from config import load_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAIN_API_PORT", "eighty"),
        ("MAIN_API_PORT", "70000"),
        ("LLM_BACKEND", "openai"),
        ("LLM_BACKEND", "auto,ollama"),
        ("OLLAMA_BASE_URL", "localhost:11434"),
        ("DEFAULT_AGENT", "clever"),
        ("DEFAULT_TEMPERATURE", "nan"),
        ("JWT_SECRET_KEY", "your-secret-key-here"),
        ("JWT_SECRET_KEY", "short"),
        ("JWT_ALGORITHM", "none"),
        ("MODEL_ALIASES", "not json"),
        ("SSE_KEEPALIVE_S", "-1"),
        ("DATABASE_URL", "app.db"),
        ("DATABASE_URL", "postgresql+nosuchdriver://host/app"),
    ],
)
def test_a_wrong_value_ends_the_start_with_one_line_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stop:
        load_settings()
    line = str(stop.value)
    assert name in line
    assert "\n" not in line


def test_a_line_in_the_env_file_counts_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("MAIN_API_PORT=1234\nTOOLS_PORT=4321\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLS_PORT", "5555")
    settings = load_settings()
    assert (settings.MAIN_API_PORT, settings.TOOLS_PORT) == (1234, 5555)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_BACKEND", "llamacpp, ollama")
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://one:11434/,http://two:11434")
    settings = load_settings()
    assert settings.LLM_BACKEND == ("llamacpp", "ollama")
    assert settings.OLLAMA_BASE_URL == ("http://one:11434", "http://two:11434")
