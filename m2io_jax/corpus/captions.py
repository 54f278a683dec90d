"""Tell captions that say nothing about their image: what an editor filled in, and words that many images share."""

import re
import unicodedata
from posixpath import splitext
from urllib.parse import unquote

# A caption that this many different images share describes none of them ("App GUI").
SHARED_BY = 4

# "image", in the languages of many manuals.
GENERIC = frozenset(
    "alt alternative attachment bild description dsc dscn fig figure foto gif graphic illustration image images imagen"
    " imagem img immagine jpeg jpg mvimg none null obrazek obrázek photo photograph pic picture placeholder png pxl"
    " screencap screencapture screengrab screenshot snapshot tbd thumbnail todo undefined unknown unnamed untitled webp"
    " abb abbildung bildschirmfoto grafik captura figura schermata écran afbeelding schermafbeelding rysunek rys zrzut"
    " zdjęcie skärmbild skærmbillede resim şekil görüntüsü изображение рисунок рис скриншот снимок картинка фото"
    " зображення 图片 图像 截图 图 屏幕截图 插图 圖片 圖 截圖 画像 写真 図"
    " スクリーンショット イメージ 이미지 그림 사진 스크린샷".split()
)
# Words that may name a thing that is shown (a clip, a frame, a screen): generic beside another such word or a number.
AMBIGUOUS = frozenset(
    "capture clip diagram drawing frame graph logo media plot scan screen shot snip text pantalla tela ekranu ekran"
    " экрана".split()
)
# Words that stand beside them and add nothing.
FILLING = frozenset(
    "a an the this my here is at am pm new pasted inserted your file name title copy de la le du von der die das"
    " et al to be added no".split()
)
WORD = re.compile(r"[^\W\d_]+")
SUFFIX = re.compile(r"\.(?:png|jpe?g|gif|webp|bmp|svg|tiff?|avif|heic)$", re.IGNORECASE)
# A checksum or an identifier, which paste and upload plug-ins give files.
IDENTIFIER = re.compile(r"(?=[a-f-]*\d)[0-9a-f]{8,}(?:-[0-9a-f]{4,}){0,4}|(?=(?:[a-z]*\d){4})[a-z0-9]{16,}")


def says_nothing(caption: str, address: str) -> bool:
    """Whether a caption holds no word about its image.

    Such are generic words with or without numbers ("Figure 3", "screenshot", "IMG_1234"), dates, identifiers, a file's
    name with its suffix, and the name of the image's own file where it is a slug ("pump-lid_2").
    """
    text = unicodedata.normalize("NFC", " ".join(caption.split()))
    if not text:
        return False
    if SUFFIX.search(text) and " " not in text:
        return True
    stem = splitext(unquote(address.partition("?")[0]).replace("\\", "/").rpartition("/")[2])[0]
    if text.casefold() == stem.casefold() and re.search(r"[\d_-]", text):
        return True
    plain = SUFFIX.sub("", text).casefold()
    if IDENTIFIER.fullmatch(plain):
        return True
    words = WORD.findall(plain)
    if not words:
        return not any(unicodedata.category(letter) in ("Sm", "Sc", "So") for letter in text)  # "√2" is no number alone
    if not all(word in GENERIC or word in AMBIGUOUS or word in FILLING for word in words):
        return False
    doubtful = sum(word in AMBIGUOUS for word in words)
    return any(word in GENERIC for word in words) or doubtful > 1 or any(letter.isdigit() for letter in plain)


def caption_key(caption: str) -> str:
    """Return what counts as the same caption: case and spaces are ignored."""
    return " ".join(caption.split()).casefold()
