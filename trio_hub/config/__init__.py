"""The settings of a hub: `HubConfig`, the rules that check each setting, and the places where settings come from."""

from .rules import DATABASES, DatabaseURL, Rule, parse_ports, split_address
from .settings import DURABILITIES, LOG_FORMATS, LOG_LEVELS, RULES, SCHEMES, HubConfig, shown_value
from .sources import POLICY_TABLE, PREFIX, STOCK_VARIABLES, load_config, profile_directory

__all__ = [
    "DATABASES",
    "DURABILITIES",
    "LOG_FORMATS",
    "LOG_LEVELS",
    "POLICY_TABLE",
    "PREFIX",
    "RULES",
    "SCHEMES",
    "STOCK_VARIABLES",
    "DatabaseURL",
    "HubConfig",
    "Rule",
    "load_config",
    "parse_ports",
    "profile_directory",
    "shown_value",
    "split_address",
]
