"""The words of the generated kitchen: what a picture can show, and the sentences that say it.

The vocabulary is small and regular on purpose (a few hundred words), so that a tokenizer and a model of a few
million parameters can learn it in minutes.
"""

import random
from dataclasses import dataclass
from functools import cached_property

from m2io_jax.errors import UserError

COUNTS = ("one", "two", "three", "four")
COLOURS = ("red", "yellow", "green", "blue", "purple", "brown")
TOOLS = ("", "knife", "pan", "bowl")
PLURALS = {
    "tomato": "tomatoes",
    "carrot": "carrots",
    "egg": "eggs",
    "lemon": "lemons",
    "fish": "fish",
    "mushroom": "mushrooms",
    "leaf": "leaves",
    "pear": "pears",
    "cheese": "cheeses",
    "banana": "bananas",
    "cracker": "crackers",
    "starfruit": "starfruits",
}
NOUNS = tuple(PLURALS)


@dataclass(frozen=True)
class Content:
    """What one picture shows: `count` (1 to 4) of `noun` (singular) in one colour, beside `tool` (empty: none)."""

    count: int
    colour: str
    noun: str
    tool: str = ""

    @cached_property
    def things(self) -> str:
        """Count, colour and noun, e.g. `three red tomatoes`."""
        noun = self.noun if self.count == 1 else PLURALS[self.noun]
        return f"{COUNTS[self.count - 1]} {self.colour} {noun}"

    @cached_property
    def text(self) -> str:
        """The canonical description, e.g. `three red tomatoes knife`; `parse` reads it back."""
        return f"{self.things} {self.tool}".rstrip()


def any_content(rng: random.Random, noun: str | None = None) -> Content:
    """A content drawn evenly from all there are, or from those of `noun`."""
    return Content(rng.randint(1, len(COUNTS)), rng.choice(COLOURS), noun or rng.choice(NOUNS), rng.choice(TOOLS))


def parse(text: str) -> Content:
    """The content whose canonical description is `text`.

    Raises:
        UserError: `text` is not a canonical description.
    """
    words = text.split()
    nouns = {form: noun for noun, plural in PLURALS.items() for form in (noun, plural)}
    if len(words) in (3, 4) and words[0] in COUNTS and words[2] in nouns:
        content = Content(COUNTS.index(words[0]) + 1, words[1], nouns[words[2]], words[3] if len(words) == 4 else "")
        if content.text == text and content.colour in COLOURS and content.tool in TOOLS:
            return content
    raise UserError(
        f"{text!r} does not describe a kitchen picture",
        mend=f"write count, colour, noun and maybe a tool, e.g. 'three red tomatoes knife'; "
        f"colours: {', '.join(COLOURS)}; nouns: {', '.join(NOUNS)}; tools: {', '.join(TOOLS[1:])}",
    )


# The tool of a sentence must be plain from its words alone: each list uses verbs that the others do not.
STEP_SENTENCES = {
    "": (
        "Get {things} ready.",
        "Wash {things} in cold water.",
        "Put {things} on the table.",
        "First of all, have {things} at hand.",
        "You need {things} for this step.",
        "Rinse {things} under the tap.",
        "Now set {things} aside for later.",
        "On a plate, lay out {things}.",
    ),
    "knife": (
        "Chop {things} with the knife.",
        "Cut {things} into small pieces.",
        "With the knife, slice {things}.",
        "Slice {things} as thin as you can.",
        "Take the knife and cut {things} in half.",
        "Now chop {things} on the board.",
        "Use a sharp knife to peel {things}.",
        "Then cut up {things} with care.",
    ),
    "pan": (
        "Fry {things} in the pan.",
        "Heat the pan and add {things}.",
        "In a hot pan, fry {things}.",
        "Let {things} sizzle in the pan.",
        "Now fry {things} on both sides.",
        "Put oil in the pan and cook {things}.",
        "Toss {things} in the pan until soft.",
        "Then fry {things} for a while.",
    ),
    "bowl": (
        "Mix {things} in a bowl.",
        "Stir {things} in the bowl.",
        "In a large bowl, mix {things}.",
        "Put {things} into the bowl and stir.",
        "Now place {things} in the bowl.",
        "Fill the bowl with {things}.",
        "Take a bowl and mash {things} in it.",
        "Then mix {things} with a spoon.",
    ),
}

# What a document says where its picture does the telling: nothing in here names a count, a colour or a noun.
TERSE_STEPS = {
    "": ("Prepare as shown.", "Get this ready."),
    "knife": ("Cut as shown.", "Make small pieces."),
    "pan": ("Into the pan.", "Cook as shown."),
    "bowl": ("Into the bowl.", "Mix as shown."),
}
TERSEST_STEPS = ("Next, like this.", "Now this step.", "Go on like this.", "As before.")

# Steps that no picture shows: the document's own words, then ways to answer with them.
PLAIN_STEPS = (
    ("Let it rest.", ("Wait for {minutes} minutes before you go on.", "Now let it rest for {minutes} minutes.")),
    ("Add salt and taste.", ("Season it with a little salt and taste it.", "Add some salt to taste.")),
    ("Turn on the oven.", ("Turn on the oven and let it get hot.", "Now heat the oven for {minutes} minutes.")),
    ("Pour in some water.", ("Pour in a cup of cold water.", "Then add a little water to it.")),
    ("Cover it and wait.", ("Cover it and wait for {minutes} minutes.", "Put a lid on and let it be.")),
    ("Let it cool.", ("Let it cool down for {minutes} minutes.", "Then wait until it is cool.")),
    ("Bake for {minutes} minutes.", ("Bake it in the oven for {minutes} minutes.", "Now bake it for a while.")),
    ("Serve while hot.", ("Serve it at once while it is hot.", "Then share it with your friends.")),
)
MINUTES = ("five", "ten", "twenty", "thirty")

ADJECTIVES = (
    "smoky", "sweet", "spicy", "crispy", "golden", "quick", "rustic", "creamy", "tangy", "hearty", "royal", "simple",
    "crunchy", "mild", "winter", "summer", "festive", "country", "silky", "bold", "morning", "midnight", "lazy",
    "grand",
)  # fmt: skip
DISHES = (
    "stew", "soup", "salad", "pie", "curry", "bake", "tart", "roast", "noodles", "rice", "omelette", "pancakes",
    "sandwich", "pizza", "dumplings", "risotto", "casserole", "chowder", "skewers", "wrap", "toast", "pudding",
    "gratin", "relish",
)  # fmt: skip
SIDES = ("basil", "garlic", "honey", "ginger", "mint", "butter", "pasta", "cream", "nuts", "herbs")

INTROS = (
    "A dish that everyone likes.",
    "This is easy to make at home.",
    "My family cooks {dish} every week.",
    "You will make {dish} again and again.",
    "Here is how we cook {dish}.",
    "Good food for a long day.",
)

WHOLE_QUESTIONS = (
    "How do I make {dish}?",
    "How is {dish} cooked?",
    "Show me how to make {dish}.",
    "What are all the steps of {dish}?",
    "I want to cook {dish}, what do I do?",
    "Can you walk me through {dish}?",
)
FIRST_QUESTIONS = (
    "How do I begin {dish}?",
    "What do the first {number} steps of {dish} look like?",
    "What comes first when I make {dish}?",
    "Show me the first {number} steps of {dish}.",
)
LAST_QUESTIONS = (
    "How do I finish {dish}?",
    "What do the last {number} steps of {dish} look like?",
    "What comes last when I make {dish}?",
    "Show me the last {number} steps of {dish}.",
)
MIDDLE_QUESTIONS = (
    "What are steps {first} to {last} of {dish}?",
    "Show me steps {first} to {last} of {dish}.",
    "How do I do steps {first} to {last} of {dish}?",
)
STEP_NUMBERS = ("one", "two", "three", "four", "five", "six")

# Questions whose answer no picture shows. `{things}` in a remark is a thing that the document has no picture of.
PLAIN_QUESTIONS = (
    ("How long does {dish} keep?", (
        "It keeps for {number} days in a cold place.",
        "Cover it well so that it stays fresh.",
        "Do not keep it in the sun.",
        "After that, it does not taste good.",
        "You can also freeze it for {number} weeks.",
    ), ()),
    ("What goes well with {dish}?", (
        "A glass of cold water goes well with it.",
        "Many people like bread with {side} beside it.",
        "A little {side} makes it even better.",
        "Tea is good after it.",
    ), ("Serve it next to {things}.", "Some people like {things} with it.", "Try it with {things} on the side.")),
    ("Who eats {dish}?", (
        "My family eats it every week.",
        "Children like it very much.",
        "It is good for {number} people.",
        "People in the hills eat it in winter.",
    ), ()),
    ("Why do people like {dish}?", (
        "It is easy to make at home.",
        "It tastes of {side} and smoke.",
        "It is ready in {minutes} minutes.",
        "You do not need much for it.",
    ), ("It also tastes good without {things}.", "You can add {things} if you like.")),
    ("When should I serve {dish}?", (
        "Serve it in the evening when it is hot.",
        "It is best on a cold day.",
        "Wait for {minutes} minutes before you serve it.",
        "It also tastes good the next day.",
    ), ()),
    ("What can I change in {dish}?", (
        "You can use less salt.",
        "Add more {side} if you like.",
        "Cook it for {minutes} more minutes in winter.",
        "Use milk in place of water.",
    ), ("You may use {things} in place of salt.", "You can add {things} if you like.")),
)  # fmt: skip
