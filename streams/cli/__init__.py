"""The command line: `schleuse`.

Commands are imported when they are used, so that `schleuse --help` is quick and a part that is not installed is missed
only by those who ask for it. An error is one sentence on standard error and exit code 1 (2 for a wrong usage): never a
traceback, since what libraries say in theirs quotes records and SQL. `--debug` adds the places in the code.
"""

from __future__ import annotations

import errno
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click

from streams.errors import SchleuseError, SettingsError

_HELP_ASKED = "schleuse.help"


class Lazy(NamedTuple):
    """Where a command is, what `--help` says of it, and whether it needs the settings."""

    where: str
    says: str
    needs_settings: bool = True


COMMANDS = {
    "demo": Lazy("streams.cli.demo:demo", "Play a week of three senders through the lock, on this machine.", False),
    "stack": Lazy("streams.cli.stack:stack", "Run a broker and both stores on this machine.", False),
    "topics": Lazy("streams.cli.topics:topics", "Plan the topics, and make what is missing."),
    "migrate": Lazy("streams.cli.migrate:migrate", "Make the tables of both stores."),
    "tenants": Lazy("streams.cli.tenants:tenants", "Check the tenants' settings, and put them in force."),
    "worker": Lazy("streams.cli.worker:worker", "Run a worker until it is told to stop."),
    "rights": Lazy("streams.cli.rights:rights", "Run the rights service until it is told to stop."),
    "publish": Lazy("streams.cli.publish:publish", "Publish what is due of all mailings, for analysts to read."),
    "figures": Lazy("streams.cli.figures:figures", "Print published figures: what an analyst may know."),
    "dashboard": Lazy("streams.cli.dashboard:dashboard", "Serve the dashboard and the API of published figures."),
    "attack": Lazy("streams.cli.attack:attack", "Attack what is published, on a system of its own.", False),
    "readers": Lazy("streams.cli.readers:readers", "Say who may read figures by the dashboard and the API."),
    "feed": Lazy("streams.cli.feed:feed", "Send events, from files or standard input."),
    "totals": Lazy("streams.cli.totals:totals", "Print exact events and distinct recipients, for operators."),
    "status": Lazy("streams.cli.status:status", "Show where every record went, and how far each partition is."),
    "rejected": Lazy("streams.cli.rejected:rejected", "List, open and send again what was refused."),
    "consents": Lazy("streams.cli.consents:consents", "Show what a recipient has agreed to, with every proof."),
    "erase": Lazy("streams.cli.erase:erase", "Erase everything that is held of a recipient."),
    "lookup": Lazy("streams.cli.lookup:lookup", "Say to whom a pseudonym belongs, for a reason that is kept."),
    "engaged": Lazy("streams.cli.engaged:engaged", "List who opened or clicked, for what they agreed to."),
    "audit": Lazy("streams.cli.audit:audit", "Show who opened and disclosed what; prove that it is whole."),
    "export": Lazy("streams.cli.export:export", "Write everything held about one recipient, for her."),
    "keys": Lazy("streams.cli.keys:keys", "Show, rotate and destroy keys; re-key recipients."),
    "verify": Lazy("streams.cli.verify:verify", "Check the promises on the running system, and print a report."),
    "record": Lazy("streams.cli.record:record", "Print a tenant's record of processing, or its privacy notice."),
    "close": Lazy("streams.cli.close:close", "Close a mailing's window: its sets become figures, for good."),
    "settings": Lazy(
        "streams.cli.settings:settings", "Print every setting, its meaning and where it comes from.", False
    ),
}


class Commands(click.Group):
    """A group whose commands are imported when they are used, and whose errors are sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which one needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command. Raises SettingsError when a package that it needs is not installed."""
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        module, _, name = lazy.where.partition(":")
        try:
            command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            raise SettingsError(f"schleuse {cmd_name} needs {error.name}, which is not installed") from None
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.says) for name, lazy in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether only help was asked for: that must not need settings."""
        ctx.meta[_HELP_ASKED] = "--help" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; whatever it raises becomes one sentence."""
        try:
            return super().invoke(ctx)
        except SchleuseError as error:
            raise _Sentence(str(error), error, ctx.params["debug"]) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:  # `schleuse totals | head`: click's business
                raise
            what = f"something unexpected happened ({type(error).__name__}); --debug says where"
            raise _Sentence(what, error, ctx.params["debug"]) from None


class _Sentence(click.ClickException):
    """One sentence on standard error, and exit code 1."""

    def __init__(self, sentence: str, error: BaseException, debug: bool) -> None:
        super().__init__(sentence)
        self._error, self._debug = error, debug

    def show(self, file: Any = None) -> None:
        click.echo(f"schleuse: {self.message}", err=True)
        if self._debug:
            from streams.logs import describe  # noqa: PLC0415  structlog takes long to import; --help should not

            for one in describe(self._error):
                click.echo("\n  ".join([str(one["type"]), *one["at"]]), err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110})
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A TOML file with settings; SCHLEUSE_CONFIG names one too. SCHLEUSE_* variables win over it.",
)
@click.option("--debug", is_flag=True, help="With an error, say where in the code it happened.")
@click.version_option(package_name="schleuse", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, config: Path | None, debug: bool) -> None:
    """Schleuse: open and click tracking that counts everybody and shows nobody.

    Consent is looked up event by event, between two stores that no single login can read together.
    """
    _be_quiet()
    lazy = COMMANDS.get(ctx.invoked_subcommand or "")
    if lazy is not None and lazy.needs_settings and not ctx.meta[_HELP_ASKED]:
        from streams.settings import load  # noqa: PLC0415  what the help does not need comes after it

        ctx.obj = load(config)


def _be_quiet() -> None:
    """Libraries do not speak on a command line: what they say quotes data. The worker sets up logs of its own."""
    import logging  # noqa: PLC0415  see above

    logging.getLogger().handlers[:] = [logging.NullHandler()]
    if not sys.warnoptions:
        import warnings  # noqa: PLC0415  see above

        warnings.simplefilter("ignore")
