"""Try out many damages, and print a table of what came of them."""

import argparse
import collections
import json
import random
import sys
import tempfile
from pathlib import Path

from tests.fuzz.damage import Damage
from tests.fuzz.driver import drawn, reader
from tests.fuzz.targets import KINDS


def main() -> int:
    """Exit code 1 where a damage went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="number of damages (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument("--kind", choices=sorted(KINDS), help="one kind of file only")
    parser.add_argument("--only", help="a single damage, as it was printed")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    table: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    wrong, most = 0, 0
    with tempfile.TemporaryDirectory() as folder, reader(Path(folder)) as reading:
        for _ in range(1 if options.only else options.count):
            damage = Damage(*json.loads(options.only)) if options.only else drawn(rng, options.kind)
            outcome = reading.try_out(damage)
            table[damage.kind][outcome.word] += 1
            most = max(most, outcome.more_bytes)
            if options.only or not outcome.is_fine:
                wrong += not outcome.is_fine
                numbers = [damage.kind, damage.how, damage.file, damage.place, damage.value]
                print(f"--only '{json.dumps(numbers)}': {outcome.word}; {outcome.said}", flush=True)
    words = sorted({word for counts in table.values() for word in counts})
    print("  ".join([f"{'':24}", *(f"{word:>20}" for word in words)]))
    for kind, counts in sorted(table.items()):
        print("  ".join([f"{kind:24}", *(f"{counts[word]:20}" for word in words)]))
    print(f"{wrong} went wrong; at most {most / 2**20:.0f} MiB more than undamaged files take")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
