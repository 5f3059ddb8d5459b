"""Damage to every kind of file that is read: it is refused in the package's form, or the data are right.

`make test` tries some hundred damages. More of them, by hand:

    python -m tests.fuzz --count 2000 --seed 1 [--kind volume]

prints what came of them, and every damage that went wrong in a form that `--only` repeats.

MRC files, files of angles and CIF files have no checksums: a changed pixel or number in them changes the data in
silence. Damages of the kind "crafted" change metadata and make the checksums fit: of these no more is asked than a
refusal or some data, within the limits of memory and time.
"""
