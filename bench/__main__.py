"""`make bench`: measure the rows, print a table, write `build/bench.json`.

It takes no arguments, but two variables of the environment:

    ROWS="a b"   only these rows          QUICK=1   every row small, and none judged

A row whose spread crosses its target is measured once more, and the two are judged as one. The
exit code is 1 if a row does not hold, 2 if one cannot be measured; `unsure` is neither.
"""

import argparse
import os
import platform
import shutil
import ssl
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from OpenSSL import SSL

from bench.lab import FULL, QUICK, Lab, build, missing
from bench.process import BenchError, Cores, cores
from bench.report import Holds, Row, Samples, as_json, exit_code, summarise, table
from bench.rows import ROWS, Spec

__all__ = ["chosen", "main", "measure"]

RESULT = Path("build/bench.json")
REMEDY = "run `make bench-setup`, or choose other rows with ROWS="


def chosen(names: Sequence[str]) -> list[Spec]:
    """The rows of these names, or all.

    Raises:
        BenchError: There is no such row.
    """
    known = {spec.name: spec for spec in ROWS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BenchError(f"no row {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else list(ROWS)


def measure(spec: Spec, lab: Lab, *, judged: bool) -> list[Row]:
    """Measure a row; once more if it is unsure."""
    samples = spec.measure(lab)
    rows = _rows(spec, samples, judged=judged)
    if any(row.holds is Holds.UNSURE for row in rows):
        again = spec.measure(lab)
        samples = {name: samples[name] + again[name] for name in samples}
        rows = _rows(spec, samples, judged=judged)
    return rows


def _rows(spec: Spec, samples: Mapping[str, Samples], *, judged: bool) -> list[Row]:
    return [
        summarise(
            figure.name,
            figure.unit,
            samples[figure.name],
            figure.target,
            against=figure.against,
            judged=judged,
        )
        for figure in spec.figures
    ]


def _check(specs: Sequence[Spec]) -> None:
    absent = missing(sorted({need for spec in specs for need in spec.needs}))
    if absent:
        raise BenchError(f"missing: {', '.join(absent)}; {REMEDY}")


def _about(where: Cores, *, quick: bool) -> dict[str, object]:
    return {
        "quick": quick,
        "python": platform.python_version(),
        "openssl": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode(),
        "system_openssl": ssl.OPENSSL_VERSION,
        "kernel": platform.release(),
        "cores": {"server": where.server, "load": where.load, "all": os.cpu_count()},
        "load_average": os.getloadavg()[0],
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(environ: Mapping[str, str] = os.environ, argv: Sequence[str] | None = None) -> int:
    """Measure, and say how it went."""
    argparse.ArgumentParser(
        prog="python -m bench",
        description=f"{__doc__}\nRows: {', '.join(spec.name for spec in ROWS)}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)
    quick = environ.get("QUICK", "") not in ("", "0")
    where = cores()
    rows: list[Row] = []
    failed = False
    try:
        specs = chosen(environ.get("ROWS", "").split())
        _check(specs)
    except BenchError as exc:
        _say(f"bench: {exc}")
        return 2
    if where.server == where.load:
        _say("bench: one core for both ends: latencies and rates tell little")
    folder = Path(tempfile.mkdtemp(prefix="anchorline-bench-"))
    try:
        lab = Lab(folder, QUICK if quick else FULL, where)
        if any(spec.needs for spec in specs):
            build(folder)
        lab.prepare()
        for spec in specs:
            try:
                measured = measure(spec, lab, judged=not quick)
            except BenchError as exc:
                _say(f"bench: {spec.name}: {exc}")
                _say((folder / "errors.log").read_text()[-2000:])
                failed = True
                continue
            rows += measured
            _say(table(measured).splitlines()[-len(measured)] if quick else table(measured))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table(rows), end="")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(as_json(rows, **_about(where, quick=quick)))
    return 2 if failed else exit_code(rows)


if __name__ == "__main__":
    sys.exit(main())
