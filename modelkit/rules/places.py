"""Where in a YAML file something stands: line and column of a character inside a scalar, whatever its style."""

from __future__ import annotations

from bisect import bisect_right

from modelkit.config.nodes import Node


class Places:
    """Turns offsets into places such as ``rules.yaml:12:17``.

    Args:
        text: The document.
        name: Name of its file.
    """

    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        self._starts = [0]
        while (end := text.find("\n", self._starts[-1])) >= 0:
            self._starts.append(end + 1)

    def at(self, node: Node, offset: int = 0) -> tuple[tuple[int, int, int], str]:
        """The place of a character of a scalar's value.

        Args:
            node: A scalar that was read from the document.
            offset: Index into its value.

        Returns:
            What to sort problems by, and the place; only the line where the node is no scalar.
        """
        if node.span is None:
            return (*node.order, 0), node.place
        index = self._index(node, offset)
        line = bisect_right(self._starts, index)
        column = index - self._starts[line - 1] + 1
        return (node.order[0], line, column), f"{self._name}:{line}:{column}"

    def _index(self, node: Node, offset: int) -> int:
        """The index in the document of a character of a value.

        Folding turns line breaks and indentation into blanks, and escapes stand for one character: the characters
        that are no blanks come in the same order in both, so they are counted off against each other.
        """
        assert node.span is not None
        start, end = node.span
        value, raw = str(node.value), self._text[start:end]
        lead = raw[:1]
        position = raw.find("\n") + 1 if lead in ("|", ">") else int(lead in ("'", '"'))
        if offset >= len(value.rstrip()):  # after the last character
            return start + len(raw.rstrip()) - (lead in ("'", '"'))
        for index, sign in enumerate(value):
            if sign.isspace():
                if index == offset:
                    return start + position
                continue
            found = raw.find(sign, position)
            if found < 0:  # an escape that spells the character otherwise
                return start + position
            if index == offset:
                return start + found
            position = found + 1
            if lead == "'" and sign == "'":
                position += 1
        return start
