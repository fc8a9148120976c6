"""Settings come from the environment, and a wrong variable names itself."""

from typing import Annotated

import pytest

from services.chassis.settings import ServiceSettings, SettingsError, describe, load, setting


class MillSettings(ServiceSettings, frozen=True, kw_only=True):
    port: Annotated[int, setting("Where it listens.")] = 7000
    wheel_s: Annotated[float, setting("Time of one turn.", unit="s")] = 1.5
    key: Annotated[str, setting("What opens the gate.", secret=True)] = ""
    wet: Annotated[bool, setting("Is there water?")] = False


def test_defaults_hold_without_variables():
    """An empty environment gives the documented defaults."""
    assert load(MillSettings, "mill", {}) == MillSettings()


def test_a_variable_of_the_service_sets_its_field():
    """MILLRACE_<SERVICE>__<FIELD> is converted to the field's type."""
    settings = load(MillSettings, "mill", {"MILLRACE_MILL__WHEEL_S": "2", "MILLRACE_MILL__WET": "true"})
    assert (settings.wheel_s, settings.wet) == (2.0, True)


def test_the_services_own_variable_wins_over_the_common_one():
    """MILLRACE_COMMON__ sets a shared field, the service's own variable is more specific."""
    environ = {
        "MILLRACE_COMMON__REDIS_URL": "redis://a",
        "MILLRACE_COMMON__DRAIN_S": "3",
        "MILLRACE_MILL__REDIS_URL": "redis://b",
    }
    settings = load(MillSettings, "mill", environ)
    assert (settings.redis_url, settings.drain_s) == ("redis://b", 3.0)


def test_a_wrong_value_names_the_variable():
    """A value of the wrong type is refused with the variable's name."""
    with pytest.raises(SettingsError, match="MILLRACE_MILL__PORT='soon'"):
        load(MillSettings, "mill", {"MILLRACE_MILL__PORT": "soon"})


def test_an_unknown_variable_names_itself_and_the_known_fields():
    """A misspelt variable would silently do nothing: it is refused."""
    with pytest.raises(SettingsError, match=r"MILLRACE_MILL__WHEELS .* wheel_s"):
        load(MillSettings, "mill", {"MILLRACE_MILL__WHEELS": "2"})


def test_variables_of_other_services_are_none_of_its_business():
    """A pod may carry the variables of several services."""
    assert load(MillSettings, "mill", {"MILLRACE_FORGE__PORT": "x", "PORT": "y"}) == MillSettings()


def test_secrets_are_not_printed():
    """What start-up prints hides secret values, and only those that are set."""
    lines = {name: value for name, value, _, _ in describe(MillSettings(key="open sesame"))}
    assert lines["key"] == "***"
    assert lines["wheel_s"] == "1.5"
