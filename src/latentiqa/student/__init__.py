"""A small fast network that learns to score from a teacher of this house, and what leaves it.

picture -> trunk -> maps ┬-> pooled -> score
                         └-> map of quality, as the teacher's decoder draws it
"""
