"""The operator's story: every step in its order, and what was observed.

A step that did not see what it claims is reported and the story goes on, unless nothing that
comes later would make sense without it.
"""

from agents.lab.acts import closing, dmz, founding, line, revocation, rotation, theft
from agents.lab.progress import Display, Observed
from agents.lab.scene import Scene, Step
from agents.runtime.errors import AgentError
from pki.errors import PKIError

__all__ = ["STEPS", "tell"]

STEPS: tuple[Step, ...] = (
    *founding.STEPS,
    *line.STEPS,
    *dmz.STEPS,
    *line.POWER,
    *rotation.STEPS,
    *theft.OPEN_DOORS,
    *revocation.STEPS,
    *theft.STEPS,
    *closing.STEPS,
)


async def tell(scene: Scene, display: Display, steps: tuple[Step, ...] = STEPS) -> list[Observed]:
    """Tell the story; returns what became of each step that was tried."""
    told = []
    for step in steps:
        display.begin(step)
        observed = await _observe(scene, step)
        display.end(observed)
        told.append(observed)
        if step.vital and not observed.ok:
            break
    return told


async def _observe(scene: Scene, step: Step) -> Observed:
    lab = scene.deployment
    started = lab.clock.monotonic()
    try:
        detail, ok = await step.act(scene), True
    except (AgentError, PKIError, OSError, TimeoutError) as exc:
        detail, ok = str(exc) or type(exc).__name__, False
    except (LookupError, ValueError, TypeError) as exc:
        # A report or an answer of another form than expected: nothing was observed either.
        detail, ok = f"{type(exc).__name__}: {exc}", False
    return Observed(step, ok, detail, lab.clock.monotonic() - started, lab.now)
