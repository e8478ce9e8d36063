"""The positive control: what an audit finds when clips were memorised.

A small model of random weights is trained on the answers of half of a user's own clips
until it has memorised them, and audited in the same way: the same frames, scores,
headline and rates. The half is drawn by `source`, so that only membership
differs. `control.json` has the result; an audit shows it next to its verdict
(`config.report.control`).

The settings of the training are fixed (`plan`). They were chosen on the demo's 100
members and 100 matched non-members at 4 frames: of two rates, 0.004 and 0.008, the
first came below the target, with an answer loss of 0.04 against 3.8 of the other half
after 68 epochs, the second after 84; with the tower trained too, at 0.002, it took 80,
of more than twice the time.
"""
