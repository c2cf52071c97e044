"""The second wall around user SQL: settings of the DuckDB instance that hold even if the guard has a hole.

The first wall is guard.py. It matters: within the allowed directories an instance still reads and writes, so a
statement that slipped through could do the lake harm, but nothing outside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import duckdb

_SEALED = {  # setting -> the value it must show afterwards; in this order, the lock last
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_unsigned_extensions": "false",
    "enable_external_access": "false",
    "lock_configuration": "true",
}


def seal(connection: duckdb.DuckDBPyConnection, allowed_directories: Iterable[Path]) -> None:
    """Close an instance for good: only files below `allowed_directories`, no extensions, no changed settings.

    Comes after everything that needs more: extensions loaded, databases attached, limits set. Connections are in UTC
    from here on, because the lock also covers their settings. Raises ConfigError when a setting did not hold.
    """
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    directories = ", ".join("'" + str(path.resolve()).replace("'", "''") + "'" for path in allowed_directories)
    connection.execute(f"SET GLOBAL allowed_directories = [{directories}]")
    for name, value in _SEALED.items():
        if _setting(connection, name) != value:  # a setting that holds already may be one that cannot be set now
            connection.execute(f"SET GLOBAL {name} = {value}")
    later = connection.cursor()  # what counts is what connections made from now on will see
    try:
        open_settings = [name for name, value in _SEALED.items() if _setting(later, name) != value]
    finally:
        later.close()
    if open_settings:
        raise ConfigError(f"the query engine could not be sealed: {', '.join(open_settings)}")


def _setting(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    row = connection.execute("SELECT value FROM duckdb_settings() WHERE name = ?", [name]).fetchone()
    return str(row[0]) if row else "unknown"
