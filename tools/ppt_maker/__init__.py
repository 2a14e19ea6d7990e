"""Presentations: a deck as data, filled in by a model, drawn as an editable PPTX and as a PDF."""
