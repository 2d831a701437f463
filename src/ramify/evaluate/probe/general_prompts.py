"""Prompts of everyday kinds: what a tuned model is tried on to see what it has forgotten."""

from __future__ import annotations

GENERAL: tuple[str, ...] = (
    "What is the capital of Italy?",
    "Name three animals that live in the sea.",
    "What is 7 times 8?",
    "How many minutes are in two hours?",
    "How many grams are in 3 kg?",
    "Write one sentence about the rain.",
    "Tell me a very short story about a fox and a well.",
    "Explain in one sentence why leaves are green.",
    "Translate into German: Good morning.",
    "What is the opposite of heavy?",
    "Give a synonym for quick.",
    "Sort these words: pear, apple, fig.",
    "Which is larger, 0.5 or 0.35?",
    "If today is Monday, which day is it in three days?",
    "What do bees make?",
    "Who wrote Hamlet?",
    "Finish the sentence: The early bird",
    "Write a Python function that adds two numbers.",
    "Is the following sentence friendly or unfriendly? I am so glad to see you.",
    "Summarise in five words: The train was late because snow lay on the tracks.",
    "What colour do you get from blue and yellow?",
    "Correct the mistake: She go to school every day.",
    "List the first five even numbers.",
    "Say hello to a new neighbour.",
)

"""One user turn each."""
