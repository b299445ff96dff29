"""Opening a long manifest: seconds and peak memory of a fresh process that opens it, and one that reads rows of it.

The manifest has rows of the length that LibriMix's have, of two sources. All name the same three files of an own folder,
as files that are absent are a fault.

    python tools/bench/manifest.py [--mixtures 1000000] [--rounds 3] [--work DIR]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

_OPEN = """
import resource, sys, time
from pathlib import Path
started = time.perf_counter()
{imports}
imported, busy = time.perf_counter(), time.process_time()
{work}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(imported - started, time.perf_counter() - imported, time.process_time() - busy, peak / 1e6)
"""
_IMPORTS = {
    "nothing but numpy": "import numpy",
    "sepml.speech.data.manifest": "from sepml.speech.data.manifest import read_manifest; import numpy",
    "sepml.speech.data.loaders (torch)": "import numpy, sepml.speech.data.loaders\n"
    "from sepml.speech.data.manifest import read_manifest",
}
_READ = "mixtures = read_manifest(Path(sys.argv[1]))"
_WORK = {
    "import": "pass",
    "open": _READ,
    "open, an epoch's order, 10,000 rows": f"{_READ}\n"
    "for i in numpy.random.default_rng(0).permutation(len(mixtures))[:10000]: mixtures[i]",
}


def main() -> None:
    """Make the manifest, open it in fresh processes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixtures", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--work", type=Path, help="folder for temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        manifest = _made_up(Path(name), options.mixtures)
        print(f"{options.mixtures} mixtures of two sources, {manifest.stat().st_size / 1e6:.0f} MB of CSV\n")
        print("| modules | work | import, s | work, s | of a processor, s | peak RSS, MB |\n|---|---|---:|---:|---:|---:|")
        for modules, imports in _IMPORTS.items():
            for what, work in _WORK.items():
                if what != "import" and modules.startswith("nothing"):
                    continue
                runs = [_measured(imports, work, manifest) for _ in range(options.rounds)]
                values = [statistics.median(run[column] for run in runs) for column in range(4)]
                print(
                    f"| {modules} | {what} | {values[0]:.2f} | {values[1]:.2f} | {values[2]:.2f} | {values[3]:.0f} |",
                    flush=True,
                )


def _made_up(folder: Path, count: int) -> Path:
    for part in ("mix_clean", "s1", "s2"):
        (folder / "wav8k" / "min" / "train-360" / part).mkdir(parents=True)
        soundfile.write(folder / "wav8k" / "min" / "train-360" / part / "1034-121119-0049.wav", np.zeros(100), 8000)
    with (folder / "train.csv").open("w", encoding="utf-8") as file:
        file.write("mixture_ID,mixture_path,source_1_path,source_2_path,length\n")
        where = ",".join(f"wav8k/min/train-360/{part}/1034-121119-0049.wav" for part in ("mix_clean", "s1", "s2"))
        file.writelines(f"1034-121119-{n:07}_7800-283492-0027,{where},{20000 + n % 90000}\n" for n in range(count))
    return folder / "train.csv"


def _measured(imports: str, work: str, manifest: Path) -> tuple[float, ...]:
    """Seconds of importing, of working by the clock and of the processor, and the peak memory in MB."""
    program = _OPEN.format(imports=imports, work=work)
    done = subprocess.run([sys.executable, "-c", program, manifest], capture_output=True, text=True, check=True)
    return tuple(map(float, done.stdout.split()))


if __name__ == "__main__":
    main()
