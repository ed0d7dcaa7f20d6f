"""`anchorline lab`: a whole deployment on this machine, and the questions an operator would ask."""

from pathlib import Path

import click

from agents.cli.terminal import Terminal, json_option, pass_terminal

__all__ = ["lab", "lab_node"]


@click.command()
@click.option(
    "--clients",
    type=click.IntRange(4, 300),
    default=12,
    show_default=True,
    help="How many.",
)
@click.option("--speed", type=click.FloatRange(min=1), help="Cap of the rate of time.")
@click.option("--show", is_flag=True, help="Walk slowly through what is worth watching.")
@click.option("--keep", is_flag=True, help="Leave it running, and say how to look at it.")
@click.option("--exec", "separate", is_flag=True, help="Start each process as a fresh interpreter.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where state and logs go: an empty folder."
)
@json_option
@pass_terminal
def lab(
    terminal: Terminal,
    clients: int,
    speed: float | None,
    show: bool,
    keep: bool,
    separate: bool,
    folder: Path | None,
) -> None:
    """Run a whole deployment on this machine.

    Time is stepped: it leaps where nothing is due and stands where something is. The lab asks what
    an operator would ask, and believes only what it sees from outside.
    """
    from agents.lab.main import Options, run

    options = Options(
        clients=clients,
        speed=speed,
        show=show,
        keep=keep,
        json=terminal.json,
        separate=separate,
        folder=folder,
    )
    terminal.code = run(options)


@click.command("lab-node", context_settings={"ignore_unknown_options": True}, hidden=True)
@click.argument("words", nargs=-1)
@pass_terminal
def lab_node(terminal: Terminal, words: tuple[str, ...]) -> None:
    """Run one component of a lab; started by `anchorline lab --exec` only."""
    from agents.lab.node import main

    terminal.code = main(list(words))
