"""The Debian packages that hold recorded speech, and their speakers: the tables of `sepml prepare prompts`."""

from dataclasses import dataclass

_AUDIO = (".wav", ".ogg", ".opus", ".mp3", ".flac", ".gsm")


@dataclass(frozen=True)
class Package:
    """A Debian package that holds speech.

    Attributes:
        version: the one the tables below were made with (Debian 12).
        reader: how its clips are found, see `clips.py`.
        place: the folder (or container file) with the speech, inside the package.
        prefix: what the names of its clip groups begin with.
    """

    name: str
    version: str
    licence: str
    reader: str
    place: str
    prefix: str

    def holds(self, pattern: str) -> bool:
        """Whether groups matching a speaker's `pattern` are in this package."""
        return pattern == self.prefix if self.reader == "asterisk" else pattern.startswith(f"{self.prefix}-")

    @property
    def licence_file(self) -> str:
        """Where Debian keeps the licence text, inside the package."""
        return f"usr/share/doc/{self.name}/copyright"

    def wants(self, name: str) -> bool:
        """Whether the file `name` of the package is needed."""
        speech = name == self.place or (name.startswith(f"{self.place}/") and name.lower().endswith(_AUDIO))
        return speech or name == self.licence_file


@dataclass(frozen=True)
class Speaker:
    """A person (now and then a few) recorded in one or more clip groups.

    Attributes:
        sex: F, M or ?, then C = by the credits or P = judged by the pitch alone.
        language: codes, separated by commas.
        who: the name or part, where it is known.
        groups: shell patterns of the clip groups with this voice.
        use: `train` (which also gives the seen-speaker sets), `valid` or `test` (the unseen-speaker sets).
        tier: A clean phrases or running speech; B clean but coarsely coded; C reverberant; D isolated words, joined.
    """

    name: str
    sex: str
    language: str
    who: str
    groups: tuple[str, ...]
    use: str
    tier: str
    note: str = ""

    def packages(self) -> list[Package]:
        """The packages this speaker's clips are in."""
        return [package for package in PACKAGES if any(map(package.holds, self.groups))]


_ASTERISK = "usr/share/asterisk/sounds"
_FILLETS = "usr/share/games/fillets-ng/sound"
_QUEEN = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c"

PACKAGES = (
    Package("asterisk-core-sounds-en-wav", "1.6.1-1", "CC-BY-SA-3.0", "asterisk", _ASTERISK, "ast-en"),
    Package("asterisk-core-sounds-es-wav", "1.6.1-1", "CC-BY-SA-3.0", "asterisk", _ASTERISK, "ast-es"),
    Package("asterisk-core-sounds-fr-wav", "1.6.1-1", "CC-BY-SA-3.0", "asterisk", _ASTERISK, "ast-fr"),
    Package("asterisk-core-sounds-it-wav", "1.6.1-1", "CC-BY-3.0", "asterisk", _ASTERISK, "ast-it"),
    Package("asterisk-core-sounds-ru-wav", "1.6.1-1", "CC-BY-3.0", "asterisk", _ASTERISK, "ast-ru"),
    Package("asterisk-prompt-es-co", "0.20070403-2.1", "GPL-2", "asterisk", _ASTERISK, "ast-es-co"),
    Package("asterisk-prompt-fr-armelle", "20070613-2.2", "BSD-like", "asterisk", _ASTERISK, "ast-fr-armelle"),
    Package(
        "asterisk-prompt-it-menardi-wav",
        "1:1.4.22+mm20110907-3.1",
        "CC-BY-SA-3.0 IT",
        "asterisk",
        _ASTERISK,
        "ast-it-menardi",
    ),
    Package("tuxpaint-stamps-default", "2022.06.04-1", "GPL-2", "tuxpaint", "usr/share/tuxpaint/stamps", "tuxpaint"),
    Package("ktuberling-data", "4:22.12.3-1", "GPL-2+", "by_language", "usr/share/ktuberling/sounds", "ktuberling"),
    Package("klettres-data", "4:22.12.3-1", "GPL-2+", "by_language", "usr/share/klettres", "klettres"),
    Package("fillets-ng-data-cs", "1.0.1-1.1", "GPL-2", "fillets", _FILLETS, "fillets-cs"),
    Package("fillets-ng-data-nl", "1.0.1-1.1", "GPL-2", "fillets", _FILLETS, "fillets-nl"),
    Package("flight-of-the-amazon-queen", "1.0.0-9", "game licence (free, DFSG)", "queen", _QUEEN, "queen"),
)

_GSM = "GSM 06.10 coded"
_REVERB = "strong added reverberation"
_MP3 = "MP3 16 kbit/s, 11 kHz"
_WORDS = "isolated words or syllables, joined"


def _rows(tier: str, *rows: tuple[str, ...]) -> tuple[Speaker, ...]:
    """Speakers of one tier from (name, sex, language, who, groups, use[, note])."""
    return tuple(
        Speaker(name, sex, language, who, tuple(groups.split()), use, tier, *note)
        for name, sex, language, who, groups, use, *note in rows
    )


# Telephone prompts, and stamp descriptions of a drawing program read by volunteers.
CORE = (
    *_rows(
        "A",
        ("f-allison", "F/C", "en,es", "Allison Smith", "ast-en ast-es", "train"),
        ("f-june", "F/C", "fr-CA", "June Wallack", "ast-fr", "train"),
        ("m-carlo", "M/C", "it", "Carlo Flora", "ast-it", "train"),
        ("f-astru", "F/C", "ru", "not named (ivrvoice.ru)", "ast-ru", "test"),
    ),
    *_rows(
        "B",
        ("f-jimenez", "F/C", "es-CO", "July E. Jimenez", "ast-es-co", "train", _GSM),
        ("f-armelle", "F/C", "fr", "Armelle Desjardins", "ast-fr-armelle", "train", _GSM),
    ),
    *_rows(
        "A",
        ("f-dalzot", "F/C", "it", "Paola Dal Zot", "ast-it-menardi", "valid"),
        ("f-tuxbe", "F/P", "be", "Kseniya Buraya (changelog)", "tuxpaint-be-*", "train"),
        ("m-tuxbg", "M/P", "bg", "", "tuxpaint-bg-*", "train"),
        ("m-tuxca", "M/P", "ca", "", "tuxpaint-ca-44k1", "train"),
        ("m-tuxda", "M/P", "da", "", "tuxpaint-da-*", "valid"),
        ("f-tuxel", "F/P", "el", "", "tuxpaint-el-*", "test"),
        ("f-tuxes", "F/P", "es", "", "tuxpaint-es-*", "train", "recorded very loud"),
        ("m-tuxfr", "M/P", "fr", "", "tuxpaint-fr-44k2", "train"),
        ("f-tuxro", "F/P", "ro", "", "tuxpaint-ro-*", "train"),
        ("m-tuxru", "M/P", "ru", "", "tuxpaint-ru-*", "test", "audible background noise"),
        ("m-tuxnl", "M/P", "nl", "", "tuxpaint-nl-*", "train"),
        ("x-tuxen", "?", "en-GB", "", "tuxpaint-en-*", "train"),
    ),
)

# Games: two talking fish, a crew of actors, and words read for children by volunteers.
GAMES = (
    *_rows(
        "C",
        ("f-filcs", "F/P", "cs", "small fish", "fillets-cs-m", "train", _REVERB),
        ("m-filcs", "M/P", "cs", "big fish", "fillets-cs-v", "train", _REVERB),
        ("f-filnl", "F/P", "nl", "small fish", "fillets-nl-m", "train", f"{_REVERB}, muffled"),
        ("m-filnl", "M/P", "nl", "big fish", "fillets-nl-v", "train", f"{_REVERB}, muffled"),
    ),
    *_rows(
        "B",
        ("m-lavelle", "M/C", "en", "Brad Lavelle (Joe King)", "queen-joe", "train", _MP3),
        (
            "m-hill",
            "M/C",
            "en",
            "Tom Hill (Sparky, Jimmy Cook, ...)",
            "queen-sparky[1-7] queen-lou[12] queen-man1 queen-jim[123]",
            "train",
            f"{_MP3}; several voices",
        ),
        (
            "m-hootkins",
            "M/C",
            "en",
            "Bill Hootkins (Frank, Mike Laris, Bud, John, Chef)",
            "queen-frank queen-laris queen-laris3 queen-bud[12] queen-john1 queen-chef",
            "test",
            f"{_MP3}; several voices",
        ),
        ("m-reitel", "M/C", "en", "Enn Reitel (Anderson, Henry)", "queen-and1 queen-henry queen-henry2", "train", _MP3),
        ("m-coleman", "M/C", "en", "Jon Coleman (Trader Bob)", "queen-bob[1-5]", "valid", _MP3),
        ("m-james", "M/C", "en", "Barry James (Ian, pygmy chief)", "queen-ian[12] queen-chief[123]", "train", _MP3),
        ("f-valdez", "F/C", "en", "Lisa Valdez (Faye Russell)", "queen-faye[2-6]", "train", _MP3),
        ("f-arnold", "F/C", "en", "Debbie Arnold (Princess Azura)", "queen-prin[124]", "train", _MP3),
        (
            "f-martin",
            "F/C",
            "en",
            "Jessica Martin (Naomi, secretary)",
            "queen-naomi queen-naomi2 queen-sec[12]",
            "valid",
            _MP3,
        ),
        (
            "f-reagan",
            "F/C",
            "en",
            "Regina Reagan (Mary-Lou Cook, witch doctor)",
            "queen-tam[1-4] queen-witch[123]",
            "test",
            _MP3,
        ),
        (
            "f-keith",
            "F/C",
            "en",
            "Penelope Keith (temple guardian)",
            "queen-oracle[123]",
            "train",
            f"{_MP3}; character inferred",
        ),
    ),
    *_rows(
        "D",
        ("m-klml", "M/P", "ml", "", "klettres-ml-44k2", "train", _WORDS),
        ("f-kdeuk", "F/P", "uk", "", "ktuberling-uk-* klettres-uk-*", "test", _WORDS),
        ("m-ktuda", "M/P", "da", "", "ktuberling-da-44k2", "train", _WORDS),
        ("f-ktuda", "F/P", "da", "", "ktuberling-da-44k1", "train", f"{_WORDS}; perhaps a child"),
        ("x-ktult", "?", "lt", "", "ktuberling-lt-44k2", "test", _WORDS),
        ("f-ktunn", "F/P", "nn", "", "ktuberling-nn-48k1", "test", _WORDS),
        ("m-ktude", "M/P", "de", "", "ktuberling-de-44k2", "train", _WORDS),
        ("x-ktuel", "?", "el", "", "ktuberling-el-44k1", "train", _WORDS),
        ("x-ktusl", "?", "sl", "", "ktuberling-sl-44k1", "train", _WORDS),
        ("m-ktuwa", "M/P", "wa", "", "ktuberling-wa-44k1", "train", _WORDS),
        ("m-kllt", "M/P", "lt", "", "klettres-lt-44k2", "train", _WORDS),
        ("m-klhu", "M/P", "hu", "", "klettres-hu-44k2", "train", _WORDS),
        ("m-klnds", "M/P", "nds", "", "klettres-nds-44k1", "valid", _WORDS),
        ("m-klfr", "M/P", "fr", "", "klettres-fr-44k1", "train", _WORDS),
        ("x-kles", "?", "es", "", "klettres-es-44k1", "train", _WORDS),
        ("f-klit", "F/P", "it", "", "klettres-it-44k1", "valid", _WORDS),
        ("f-klnl", "F/P", "nl", "", "klettres-nl-44k1", "train", _WORDS),
        ("x-klhe", "?", "he", "", "klettres-he-44k1", "train", _WORDS),
        ("f-klar", "F/P", "ar", "", "klettres-ar-44k2", "train", _WORDS),
        ("f-klgb", "F/P", "en-GB", "", "klettres-en_GB-44k1", "train", _WORDS),
        ("f-klcs", "F/P", "cs", "", "klettres-cs-44k1", "train", _WORDS),
    ),
)

SIZES = {"core": CORE, "full": CORE + GAMES}
