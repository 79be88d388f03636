"""What wikis in several languages call files, closing sections and redirects.

A dump names its namespaces, but not their older names, which many pages still use, nor the words of
redirects; and what sections list sources is a custom of each wiki.
"""

from __future__ import annotations

import re


def listed(names: str) -> frozenset[str]:
    """The names of a text in which ` | ` stands between them."""
    return frozenset(" ".join(names.split()).split(" | "))


FILES = listed(
    """file | image | media | bild | datei | medium | fichier | média | archivo | imagen |
    immagine | ficheiro | arquivo | imagem | bestand | afbeelding | plik | grafika | файл |
    изображение | зображення | fil | billede | fitxer | imatge | tiedosto | kuva | soubor |
    obrázek | súbor |
    fájl | kép | fişier | fișier | imagine | dosya | resim | berkas | gambar | tập tin | hình |
    αρχείο | εικόνα | קובץ | תמונה | ملف | صورة | پرونده | تصویر | चित्र | ไฟล์ | ファイル | 画像 |
    文件 | 图像 | 檔案 | 圖像 | 파일 | 그림"""
)
"""Lower-case names of the namespace of files."""

CLOSING = listed(
    """bibliography | citations | external links | footnotes | further reading | gallery |
    literature | notes | notes and references | references | references and notes | see also |
    sources | works cited |
    literatur | weblinks | einzelnachweise | siehe auch | quellen | anmerkungen | belege |
    notes et références | références | bibliographie | voir aussi | liens externes | annexes |
    articles connexes | lien externe |
    referencias | enlaces externos | véase también | bibliografía | notas | notas y referencias |
    note | bibliografia | collegamenti esterni | voci correlate | altri progetti |
    referências | ligações externas | ver também | notas e referências |
    externe links | externe link | zie ook | bronnen | literatuur | referenties | voetnoten |
    przypisy | linki zewnętrzne | zobacz też | uwagi |
    примечания | ссылки | литература | см. также | источники |
    примітки | посилання | література | див. також | джерела |
    referenser | källor | externa länkar | se även | noter | litteratur |
    referanser | kilder | eksterne lenker | eksterne henvisninger | se også |
    lähteet | viitteet | aiheesta muualla | katso myös | kirjallisuutta |
    reference | literatura | externí odkazy | související články | poznámky |
    jegyzetek | források | további információk | kapcsolódó szócikkek |
    kaynakça | dış bağlantılar | ayrıca bakınız |
    referències | enllaços externs | vegeu també | notes i referències |
    脚注 | 注釈 | 出典 | 参考文献 | 関連項目 | 外部リンク |
    参考资料 | 外部链接 | 参见 | 注释 | 參考文獻 | 參考資料 | 外部連結 | 參見 | 註釋 |
    각주 | 참고 문헌 | 외부 링크 | 같이 보기"""
)
"""Lower-case headings of sections that only list sources and links."""

REDIRECT = re.compile(
    r"""\s*\#(?:redirect\b | (?:weiterleitung|redirection|redirección|rinvia|redirecionamento|
    doorverwijzing|patrz|przekieruj|tam|перенаправление|перенапр|перенаправлення|omdirigering|
    omdiriger|videresend|ohjaus|uudelleenohjaus|přesměruj|presmeruj|átirányítás|yönlendirme|
    yönlendi̇rme|redirecció|alih|đổi|ανακατευθυνση|הפניה|تحويل|تغییرمسیر|転送|リダイレクト|重定向|
    넘겨주기)\s*:?\s*\[\[)""",
    re.IGNORECASE | re.VERBOSE,
)
"""The beginning of a page that is a redirect."""
