"""Numbers in words, as the processor writes the count of frames into its prompt.

The form is that of num2words for English: "one hundred and one", "two thousand, three
hundred and four". https://github.com/savoirfairelinux/num2words
"""

_ONES = tuple(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen
    fourteen fifteen sixteen seventeen eighteen nineteen""".split()
)
_TENS = tuple("twenty thirty forty fifty sixty seventy eighty ninety".split())
_END = 1_000_000


def in_words(number: int) -> str:
    """Returns a whole number from 0 to 999,999 in words.

    Example:
      >>> in_words(64), in_words(1001)
      ('sixty-four', 'one thousand and one')
    """
    if not 0 <= number < _END:
        raise ValueError(f"{number} is not a number from 0 to {_END - 1}.")
    thousands, rest = divmod(number, 1000)
    if not thousands:
        return _below_thousand(rest)
    text = f"{_below_thousand(thousands)} thousand"
    if not rest:
        return text
    return text + (" and " if rest < 100 else ", ") + _below_thousand(rest)


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    if not hundreds:
        return _below_hundred(rest)
    text = f"{_ONES[hundreds]} hundred"
    return f"{text} and {_below_hundred(rest)}" if rest else text


def _below_hundred(number: int) -> str:
    if number < len(_ONES):
        return _ONES[number]
    tens, ones = divmod(number, 10)
    return f"{_TENS[tens - 2]}-{_ONES[ones]}" if ones else _TENS[tens - 2]
