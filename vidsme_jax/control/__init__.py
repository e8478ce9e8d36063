"""The positive control: what an audit finds when clips were memorised.

A small model of random weights is trained on the answers of half of a user's clips
until it has memorised them, and audited with the same frames, scores, headline and
rates. The half is drawn by `source`, so that only membership differs. `control.json`
holds the result; an audit shows it next to its verdict (`config.report.control`).

The settings of the training are fixed (`plan`). They were chosen on the demo's 100
members and 100 matched non-members at 4 frames. A learning rate of 0.004 reached the
target after 68 epochs, with an answer loss of 0.04 against 3.8 of the other half, and
0.008 after 84; with the tower trained too, at 0.002, it took 80 epochs, each more than
twice as long.
"""
