"""All models in service, and what they share."""

import asyncio
import difflib
import logging
from collections.abc import Mapping
from pathlib import Path

from dracones.serving.audit import Audit, KeptImages
from dracones.serving.decoding import Decoder
from dracones.serving.intake import Intake
from dracones.serving.measures import Measures
from dracones.serving.models import Load, Served
from dracones.serving.refusal import Refused
from dracones.serving.settings import Settings
from dracones.serving.watching import Watch

log = logging.getLogger("dracones.serving")


class House:
    """The models by name, their threads, measures and logs.

    Args:
        models: file of each name.
        load: a file to a detector.
        settings: of the service.
        without_threshold: whether models may give scores alone.
    """

    def __init__(
        self, models: Mapping[str, Path], load: Load, settings: Settings, *, without_threshold: bool = False
    ) -> None:
        if not models:
            raise ValueError("no model to serve; name one file or more")
        self.settings = settings
        self.measures = Measures()
        self.audit = None if settings.audit is None else Audit.of(settings, self.measures)
        self.confirmed = None if settings.confirmed is None else KeptImages(settings.confirmed)
        self.decoder = Decoder(settings.limits, settings.max_decoded_bytes)
        self.intake = Intake(settings, self.measures)
        self.draining = False
        self.served = {
            name: Served(
                name,
                path,
                load,
                settings,
                without_threshold=without_threshold,
                observe=self.measures.batches(name),
            )
            for name, path in models.items()
        }
        self.watches = {name: Watch(name, each.current, self.measures) for name, each in self.served.items()}
        for served in self.served.values():
            self.measures.model(served)
            if served.current.seconds > settings.deadline:
                log.warning(
                    "%s takes %.2f s an image, more than the deadline of %g s: raise --deadline",
                    served.name,
                    served.current.seconds,
                    settings.deadline,
                )

    def named(self, name: str) -> Served:
        """The model of that name.

        Raises:
            Refused: 404, with the nearest names.
        """
        if name in self.served:
            return self.served[name]
        near = difflib.get_close_matches(name, self.served, n=3, cutoff=0.4) or sorted(self.served)[:10]
        raise Refused(404, f"no model {name[:100]!r} here; there is {', '.join(map(repr, near))}", unread=True)

    @staticmethod
    def group_of(served: Served, group: str | None, *, status: int = 422) -> str | None:
        """The group of a request's images, which has to be named where each has its own calibration.

        Raises:
            Refused: none named or one that was not calibrated, with the nearest names; or one where there are none.
        """
        groups = served.current.groups
        if groups is None:
            if group is None:
                return None
            raise Refused(status, f"{served.name} has one calibration for all images; leave out the group", unread=True)
        if group in groups.calibrations:
            return group
        near = difflib.get_close_matches(group or "", groups.names, n=3, cutoff=0.4) or list(groups.names)[:10]
        said = "needs the images' group" if group is None else f"knows no group {group[:100]!r}"
        raise Refused(status, f"{served.name} {said} (?group=); there is {', '.join(map(repr, near))}", unread=True)

    @property
    def unready(self) -> str | None:
        """Why no request should come now."""
        if self.draining:
            return "draining: the service is about to stop"
        dead = [served.name for served in self.served.values() if not served.batcher.alive]
        return f"no thread scores for {', '.join(dead)}" if dead else None

    async def watch_files(self) -> None:
        """Look at the model files for ever, and put changed ones in service."""
        while True:
            await asyncio.sleep(self.settings.reload_every)
            for served in self.served.values():
                swapped = await asyncio.to_thread(served.look)
                if swapped is None:
                    continue
                self.measures.reloaded(served, swapped)
                if swapped:
                    self.watches[served.name].begin(served.current)
                    log.info("%s is now %s (%s)", served.name, served.path, served.current.sha256[:12])
                else:
                    log.error("%s stays as it was; the file that lies there now: %s", served.name, served.trouble)

    def close(self) -> None:
        """Score what waits and end all threads."""
        for served in self.served.values():
            served.batcher.close()
        self.decoder.close()
        if self.audit is not None:
            self.audit.close()
