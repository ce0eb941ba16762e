"""`lns config`: the client's defaults."""

import click

from cli.context import FAILURE, Context, subcommand
from cli.options import format_option
from cli.render.output import columns, write_rows
from lns.client.connection.config import config_path, load_config
from lns.client.connection.config_file import read_config, write_config
from lns.client.connection.config_keys import KEYS, check_value, find_key

_COLUMNS = columns(key="KEY", value="VALUE", meaning="MEANING")


@click.group("config", short_help="Get and set defaults")
def config() -> None:
    """Get and set defaults of runs, and where the services are."""


@subcommand(config, "get", doing="get {key}")
@click.argument("key", metavar="KEY")
def config_get(context: Context, key: str) -> int:
    """Print the value of KEY; exit code 1 if it has none."""
    find_key(key)
    value = load_config(context).get(key)
    if value is None:
        return FAILURE
    context.write(value)
    return 0


@subcommand(config, "set", doing="set {key}")
@click.argument("key", metavar="KEY")
@click.argument("value", metavar="VALUE")
def config_set(context: Context, key: str, value: str) -> None:
    """Give KEY a value."""
    check_value(key, value)
    path = config_path(context)
    write_config(path, {**read_config(path), key: value})


@subcommand(config, "unset", doing="unset {key}")
@click.argument("key", metavar="KEY")
def config_unset(context: Context, key: str) -> None:
    """Take the value of KEY away."""
    find_key(key)
    path = config_path(context)
    values = read_config(path)
    if values.pop(key, None) is not None:
        write_config(path, values)


@subcommand(config, "list", doing="list the configuration")
@format_option
def config_list(context: Context, form: str | None) -> None:
    """List every key with its value."""
    values = load_config(context)
    rows = [
        {"key": key.name, "value": values.get(key.name), "meaning": key.meaning}
        for key in KEYS.values()
    ]
    write_rows(rows, _COLUMNS, form=form, write=context.write)
