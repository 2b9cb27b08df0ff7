# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""Captions as people write them, and texts that are harder."""

CAPTIONS = (
    "A brown dog runs along the beach with a stick in its mouth .",
    "Two children in red jackets are building a snowman .",
    "A man in a blue shirt is climbing a steep rock face .",
    "Three women sit on a bench and talk .",
    "A cyclist jumps over a fallen log in the forest .",
    "The black and white dog is catching a frisbee in midair .",
    "A girl in a pink dress blows soap bubbles in the garden .",
    "People are waiting for a bus in the rain .",
    "A surfer rides a large wave .",
    "An old man with a hat is feeding pigeons in front of a church .",
    "A little boy slides down a yellow slide into the water .",
    "Several hikers walk across a snowy ridge under a clear sky .",
    "A football player in white is tackled by two others .",
    "A woman holds an umbrella and a newspaper .",
    "Two dogs are fighting over a tennis ball on the grass .",
    "A group of teenagers poses for a picture at night .",
    "A motorcycle racer leans into a turn .",
    "A child looks at fish through the glass of an aquarium .",
    "A skateboarder does a trick on a handrail while his friends watch .",
    "Someone in a kayak is paddling down the rapids .",
    "A market stall with oranges , lemons and a sleeping cat .",
    "The couple dances on a wooden stage in front of musicians .",
    "A white horse stands behind a fence at sunset .",
    "Four men carry a boat out of the lake .",
)

HARD = (
    "",
    " two  spaces and a tab\t",
    "line one\nline two\n",
    "naïve café, 50 €, 日本語, שלום, 👩🏽‍🚀",
    "<|endoftext|><|im_start|>user",
    "x" * 200,
)
