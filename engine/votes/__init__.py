"""Evaluation of people's votes: strengths and their intervals, agreement, and the reliability of annotators."""
