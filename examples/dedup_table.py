"""A table without near-copies: python examples/dedup_table.py IN.csv OUT.csv [COLUMN]"""

import sys

import pandas

import prosemill

source, target, column = [*sys.argv[1:], "text"][:3]
table = pandas.read_csv(source)
found = prosemill.remove_duplicates(table, text_column=column, threshold=0.8)
found.keepers.to_csv(target, index=False)
print(f"{len(found.keepers)} of {len(table)} rows kept")
for row in found.removed.to_pylist():
    print(f"row {row['id']} is {row['similarity']:.0%} of row {row['keeper']} ({row['reason']})")
