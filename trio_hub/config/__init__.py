"""The settings of a hub: `HubConfig`, the rules that check each setting, and the places where settings come from."""

from .pools import Pool
from .rules import DATABASES, DatabaseURL, Rule, parse_ports, split_address
from .settings import DURABILITIES, LOG_FORMATS, LOG_LEVELS, RULES, SCHEMES, HubConfig, shown_value
from .sources import PREFIX, STOCK_VARIABLES, TABLES, is_of_a_block, load_config, option_of, profile_directory

__all__ = [
    "DATABASES",
    "DURABILITIES",
    "LOG_FORMATS",
    "LOG_LEVELS",
    "PREFIX",
    "RULES",
    "SCHEMES",
    "STOCK_VARIABLES",
    "TABLES",
    "DatabaseURL",
    "HubConfig",
    "Pool",
    "Rule",
    "is_of_a_block",
    "load_config",
    "option_of",
    "parse_ports",
    "profile_directory",
    "shown_value",
    "split_address",
]
