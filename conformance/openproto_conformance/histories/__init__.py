"""Histories: sequences of calls whose every answer is compared with the model's.

A history is data: a list of steps that name the records of earlier steps, made from one seed. So it can be played again
for other users, with steps left out, until the shortest one that still shows the difference is found, and it can be
printed as a program. Hypothesis's stateful engine was not taken: it drives rules one call at a time on a loop that it
owns, while here several histories run at once, calls are cancelled at a given suspension, and the clients belong to the
bench; and a vendor's store cannot be put back to empty between attempts, which its shrinking expects.
"""
