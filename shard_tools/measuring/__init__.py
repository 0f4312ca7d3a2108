"""Packs measured on labelled texts: answers at any fidelity, and how good they are."""
