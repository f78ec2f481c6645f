"""Energy that a run took, where this machine lets it be read; None where not, rather than a guess without a name.

A GPU's counter (NVML) and the processor's (RAPL) are measurements; CodeCarbon's figure for a processor without a
readable counter is an estimate from its load, and is named so. None of them is needed.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

log = logging.getLogger(__name__)

RAPL = Path("/sys/class/powercap")
CPUINFO = Path("/proc/cpuinfo")
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Energy:
    """`kwh` is None where nothing could be read; `source` says what was, and how."""

    kwh: float | None
    source: str | None


class Meter:
    """Started when it is made; `read` any number of times, `stop` once."""

    def __init__(self, rapl: Path = RAPL) -> None:
        self._counters: list[tuple[str, Callable[[], float], float]] = []  # name, joules so far, joules at the start
        self._tracker: Any = None
        for name, joules in (("NVML", _nvml()), ("RAPL", _rapl(rapl))):
            if joules is not None:
                self._counters.append((name, joules, joules()))
        if not any(name == "RAPL" for name, *_ in self._counters):
            self._tracker = _codecarbon()

    def read(self) -> Energy:
        """What the counters say since the start; of everything on GPUs and processors: none knows whose it is."""
        return self._sum({})

    def stop(self) -> Energy:
        """The same with CodeCarbon's estimate, which it makes at the end."""
        if self._tracker is None:
            return self.read()
        try:
            self._tracker.stop()
            data = self._tracker.final_emissions_data
            estimated = {"CodeCarbon, estimated from the load": float(data.cpu_energy + data.ram_energy)}
        except Exception as error:  # noqa: BLE001 - a library for reports must not cost the model
            log.info("energy: CodeCarbon failed (%s)", error)
            estimated = {}
        self._tracker = None
        return self._sum(estimated)

    def _sum(self, estimated: dict[str, float]) -> Energy:
        kwh = {name: (joules() - before) / JOULES_PER_KWH for name, joules, before in self._counters} | estimated
        return Energy(round(sum(kwh.values()), 9), " + ".join(kwh)) if kwh else Energy(None, None)


class EnergyNotes(TrainerCallback):  # type: ignore[misc]
    """Notes with every checkpoint what has been spent, so that a run that is killed is not free."""

    def __init__(self, meter: Meter, folder: Path) -> None:
        self.meter, self.path = meter, folder / f"energy-{os.getpid()}.json"

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero and (kwh := self.meter.read().kwh) is not None:
            self.path.write_text(json.dumps(kwh), encoding="utf-8")


def energy_of(folder: Path, spent: Energy) -> dict[str, Any]:
    """What this process spent and, by their notes, those before it that were killed, in the manifest's terms."""
    notes = [path for path in folder.glob("energy-*.json") if path.name != f"energy-{os.getpid()}.json"]
    spent_kwh = [spent.kwh, *(float(path.read_text(encoding="utf-8")) for path in notes)]
    known = [kwh for kwh in spent_kwh if kwh is not None]
    return {"energy_kwh": round(math.fsum(known), 9) if known else None, "energy_source": spent.source}


def _nvml() -> Callable[[], float] | None:
    """Joules of all GPUs since their driver was loaded."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]

        def joules() -> float:
            return sum(float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in handles) / 1000

        joules()
    except Exception as error:  # noqa: BLE001 - no package, no driver, a card without the counter
        log.info("energy: no GPU counter (%s)", type(error).__name__)
        return None
    return joules if handles else None


def _rapl(folder: Path) -> Callable[[], float] | None:
    """Joules of all processor packages; their counters turn over, which is put right here."""
    zones = [zone for zone in folder.glob("*-rapl:*") if zone.name.count(":") == 1]
    last: dict[Path, int] = {}
    turned: dict[Path, int] = dict.fromkeys(zones, 0)

    def joules() -> float:
        for zone in zones:
            now = int((zone / "energy_uj").read_text())
            if now < last.get(zone, 0):
                turned[zone] += int((zone / "max_energy_range_uj").read_text())
            last[zone] = now
        return sum(last[zone] + turned[zone] for zone in zones) / 1e6

    try:
        joules()
    except (OSError, ValueError):
        return None
    return joules if zones else None


def _codecarbon() -> Any:
    """CodeCarbon without network, files or GPU (NVML measures that); None where it is not installed."""
    try:
        from codecarbon import OfflineEmissionsTracker

        _name_processor()
        tracker = OfflineEmissionsTracker(
            country_iso_code="USA",  # asked for, but only used for emissions, which depend on it; we take the energy
            tracking_mode="process",
            save_to_file=False,
            log_level="critical",
            allow_multiple_runs=True,
            gpu_ids=[],
        )
        tracker.start()
    except Exception as error:  # noqa: BLE001 - not installed, or it fails on this machine
        log.info("energy: no CodeCarbon (%s)", type(error).__name__)
        return None
    return tracker


def _name_processor() -> None:
    """Tell py-cpuinfo's answer to CodeCarbon beforehand: it takes a process and a second, the file no time."""
    import cpuinfo
    from codecarbon.core.util import detect_cpu_model

    names = re.findall(r"^model name\s*:\s*(.+)$", _read(CPUINFO), flags=re.MULTILINE)
    if not names:
        return
    original, cpuinfo.get_cpu_info = cpuinfo.get_cpu_info, lambda: {"brand_raw": names[0].strip()}
    try:
        detect_cpu_model()  # CodeCarbon asks once and remembers
    finally:
        cpuinfo.get_cpu_info = original


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""
