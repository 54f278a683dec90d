"""Addresses that a forge (GitHub, GitLab, Gitea, Bitbucket) gives to files of the imported repository itself."""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

RAW_HOSTS = ("raw.githubusercontent.com", "raw.github.com")
MEDIA_HOST, CDN_HOST = "media.githubusercontent.com", "cdn.jsdelivr.net"
# Parts of the names of hosts that serve a forge; GitLab also marks its addresses by "/-/".
FORGE_SIGNS = ("git", "bitbucket", "codeberg", "gitea", "forge")
RAW = re.compile(r"/([^/]+)/([^/]+)/(?:refs/(?:heads|tags)/)?([^/]+/.+)")
CDN = re.compile(r"/gh/([^/]+)/([^/@]+)(@[^/]+/.+|/.+)")
FORGE = re.compile(r"/(.+?)/([^/]+)(?:/-)?/(?:blob|raw|src|tree)/(?:branch/|tag/|refs/(?:heads|tags)/)?([^/]+/.+)")
# "../blob/main/docs/a.png" in a README or a wiki: relative to the page's address on the forge.
RELATIVE = re.compile(r"(?:\.{0,2}/)*(?:[^/.][^/]*/[^/]+/)?(?:-/)?(?:blob|raw|src|tree)/([^/]+/.+)")
REMOTE_URL = re.compile(r"^\s*url\s*=\s*\S*?[:/]([^/:\s]+)/([^/\s]+?)(?:\.git)?/?\s*$", re.MULTILINE)
ARCHIVE_SUFFIX = re.compile(r"[-_.](?:main|master|v?\d[\w.]*)$")
MAX_CONFIG_BYTES = 65_536
MAX_BRANCH_PARTS = 3


class OwnRepository:
    """Tells addresses of the imported tree's own repository from those of others.

    The repository is known where the tree holds `.git/config`. Elsewhere an address counts as the tree's own when the
    file it names is there, at a path of a folder and a name at least: a logo at another repository's top is not ours.

    Args:
        root: the imported tree, resolved.
    """

    def __init__(self, root: Path):
        self.folder = root.name.casefold()
        self.names = _remote_names(root)

    def paths_of(self, address: str) -> list[str]:
        """Return the paths below the tree that a web address may mean, the likeliest first; none for other sites."""
        try:
            url = urlsplit(address)
            host = (url.hostname or "").lower()
        except ValueError:
            return []
        path = url.path.removeprefix("/media") if host == MEDIA_HOST else url.path
        if host in (*RAW_HOSTS, MEDIA_HOST):
            found = RAW.fullmatch(path)
        elif host == CDN_HOST:
            found = CDN.fullmatch(path)
        elif "/-/" in path or any(sign in host for sign in FORGE_SIGNS):
            found = FORGE.fullmatch(path)
        else:
            return []
        if not found:
            return []
        repository = unquote(found[2]).casefold().removesuffix(".git")
        if self.names and repository not in self.names:
            return []
        rest = found[3]
        if host == CDN_HOST:
            # The version is part of the repository's name and may be left out.
            rest = rest[1:] if rest.startswith("@") else f"HEAD{rest}"
        is_known = bool(self.names) or repository == ARCHIVE_SUFFIX.sub("", self.folder)
        return self._paths(rest, is_known=is_known)

    def paths_of_relative(self, path: str) -> list[str]:
        """Return the paths below the tree that a relative address with "blob/BRANCH/" in it may mean."""
        found = RELATIVE.fullmatch(path)
        return self._paths(found[1], is_known=True) if found else []

    def _paths(self, branch_and_path: str, *, is_known: bool) -> list[str]:
        parts = PurePosixPath(unquote(branch_and_path)).parts
        if ".." in parts:
            return []
        paths = []
        # A branch's name may hold slashes; that is tried only where the repository is ours for certain.
        for branch in range(1, 1 + (MAX_BRANCH_PARTS if is_known else 1)):
            inner = parts[branch:]
            if len(inner) > (0 if is_known else 1):
                paths.append("/".join(inner))
            # Where a folder of the repository was imported, its paths begin below that folder.
            starts = [at + 1 for at, part in enumerate(inner[:-1]) if part.casefold() == self.folder]
            paths += ["/".join(inner[start:]) for start in starts]
        return list(dict.fromkeys(paths))


def _remote_names(root: Path) -> frozenset[str]:
    """Return the names of the repositories that the tree's Git settings push to or fetch from."""
    file = root / ".git" / "config"
    try:
        if not file.resolve().is_relative_to(root) or not file.is_file() or file.stat().st_size > MAX_CONFIG_BYTES:
            return frozenset()
        text = file.read_text(encoding="utf-8", errors="replace")
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(found[2].casefold() for found in REMOTE_URL.finditer(text))
