"""Shortcodes of Hugo, Docsy and Zola; tags of Jekyll, GitBook and Hexo; Liquid in addresses."""

import pytest

SHORTCODES = {
    "title, caption and alt": (
        '{{< figure src="a.png" title="Box" alt="Lid" caption="The lid" >}}',
        [("a.png", 1, "Lid. Box. The lid")],
    ),
    "single quotes": ("{{< figure src='a.png' alt='Lid' >}}", [("a.png", 1, "Lid")]),
    "backticks": ("{{< figure src=`a.png` alt=`Lid` >}}", [("a.png", 1, "Lid")]),
    "no quotes, no spaces": ("{{<figure src=a.png>}}", [("a.png", 1)]),
    "quotes in quotes": ('{{< figure src="a.png" caption="The \\"lid\\"" >}}', [("a.png", 1, 'The "lid"')]),
    "percent signs": ('{{% figure src="a.png" %}}', [("a.png", 1)]),
    "ended by a slash": ('{{< figure src="a.png" />}}', [("a.png", 1)]),
    "by position": ('{{< figure "a.png" "The lid" >}} {{< img b.jpg >}}', [("a.png", 1), ("b.jpg", 1)]),
    "Markdown and tags in a caption": (
        "{{< figure src='a.png' caption='The *lid*<br>of [it](x), <b>open</b> & `off`' >}}",
        [("a.png", 1, "The lid of it, open & off")],
    ),
    "over several lines": (
        'Before.\n\n{{< figure\n  src="a.png"\n  caption="The lid"\n>}}\n\nAfter ![b](b.png)',
        ["Before.", ("a.png", 3, "The lid"), "After", ("b.png", 8, "b")],
    ),
    "over several lines after text": ("Look: {{< figure\nsrc='a.png'\n>}}\nAfter.", ["Look:", ("a.png", 1), "After."]),
    "other names for the address": (
        '{{< image link="a.png" caption="The lid" >}}\n\n{{< card image="b.png" link="x" title="B" >}}',
        [("a.png", 1, "The lid"), ("b.png", 3, "B")],
    ),
    "Docsy": (
        '{{< imgproc a Fit "400x300" >}}\nThe *lid*.\n{{< /imgproc >}}\n\nAfter.',
        [("a", 1, "The lid."), "After."],
    ),
    "around a picture": (
        '{{< figure caption="The lid" >}}\n![x](a.png)\n{{< /figure >}}',
        [("a.png", 2, "x. The lid")],
    ),
    "in a list": (
        "- One\n  {{< figure src='a.png' >}}\n  The lid.\n  {{< /figure >}}\n- Two",
        ["One", ("a.png", 2, "The lid."), "Two"],
    ),
    "in a table": ("| a |\n|---|\n| {{< figure src='a.png' >}} b |", ["a", "b", ("a.png", 3)]),
    "content of tabs": (
        '{{< tabs >}}\n{{% tab "x" %}}\nIn ![t](t.png)\n{{% /tab %}}\n{{< /tabs >}}',
        ["In", ("t.png", 3, "t")],
    ),
    "tags between two sentences": ("One.\n{{< tab x >}}\nTwo.", ["One.", "Two."]),
    "comments": ("{{</* figure src='no.png' */>}} {{/* ![](no.png) */}}\n\nText.", ["Text."]),
    "code": (
        "```\n{{< figure src='no.png' >}}\n```\n\n`{{< figure src='no.png' >}}`",
        ["{{< figure src='no.png' >}}"] * 2,
    ),
    "code of a tag": ("{% highlight md %}\n![](no.png)\n{% endhighlight %}\n\nText.", ["![](no.png)", "Text."]),
    "no pictures": ('{{< youtube abc >}} {{< ref "x.md" >}} {{< icon name="a" >}}\n\nText.', ["Text."]),
    "video and gallery": (
        '{{< video src="v.mp4" >}}\n\n{{< gallery dir="/img" >}}',
        [("unsupported", 1), ("unsupported", 3)],
    ),
    "a video's still": ('{{< video src="v.mp4" poster="a.png" >}}', [("a.png", 1)]),
    "never closed": ('{{< figure src="a.png"\n\nText.', ['{{< figure src="a.png"', "Text."]),
    "Zola": (
        '{{ image(path="a.png", alt="Lid") }}\n\n{% figure(src="b.png") %}\nThe box.\n{% end %}\n\n{{ other(x=1) }}',
        [("a.png", 1, "Lid"), ("b.png", 3, "The box.")],
    ),
    "Jekyll's include": ('{% include figure.html url="/a.png" description="Lid" %}', [("/a.png", 1, "Lid")]),
    "Jekyll's include, no quotes": (
        "{% include image.html src=a.png alt=Lid caption='The box' %}",
        [("a.png", 1, "Lid. The box")],
    ),
    "Jekyll's include in a folder": ('{%- include elements/figure image_path="a.png" -%}', [("a.png", 1)]),
    "Hexo and Octopress": (
        "{% asset_img a.png The lid %}\n\n{% img left /b.png 300 200 %}",
        [("a.png", 1), ("/b.png", 3)],
    ),
    "GitBook": (
        '{% hint style="info" %}\nMind ![h](h.png)\n{% endhint %}\n\n{% tabs %}\n{% tab title="T" %}\n'
        "In.\n{% endtab %}\n{% endtabs %}\n"
        '{% embed url="https://e.org" %}\nAbout it.\n{% endembed %}',
        ["Mind", ("h.png", 2, "h"), "In.", "About it."],
    ),
}

LIQUID = {
    "filters": (
        "![a]({{ \"/a.png\" | relative_url }}) ![b]({{ '/b.png' | prepend: site.baseurl | absolute_url }})",
        [("/a.png", 1, "a"), ("/b.png", 1, "b")],
    ),
    "append and prepend": ('![a]({{ "a" | append: ".png" | prepend: "/img/" }})', [("/img/a.png", 1, "a")]),
    "the site's address": ("![a]({{ site.url }}{{ site.baseurl }}/a.png)", [("/a.png", 1, "a")]),
    "in HTML": (
        "<img src=\"{{ '/a.png' | relative_url }}\"><img src='{{site.baseurl}}/b.png'>",
        [("/a.png", 1), ("/b.png", 1)],
    ),
    "link": ("![a]({% link img/a.png %})", [("/img/a.png", 1, "a")]),
    "link after the base": ("![a]({{ site.baseurl }}{% link img/a.png %})", [("/img/a.png", 1, "a")]),
    "variables": (
        '{% assign d = "/img" %}\n{% assign e = d | append: "/sub" -%}\n![a]({{ d }}/a.png) ![b]({{e}}/b.png)',
        [("/img/a.png", 3, "a"), ("/img/sub/b.png", 3, "b")],
    ),
    "capture": ("{% capture d %}/img{% endcapture %}\n\n![a]({{ d }}/a.png)", [("/img/a.png", 3, "a")]),
    "a capture over several lines is read where it stands": (
        "{% capture d %}\nOne ![a](a.png)\n\nTwo\n{% endcapture %}\n\nText.",
        ["One", ("a.png", 2, "a"), "Two", "Text."],
    ),
    "in a definition": ("![a][x]\n\n[x]: {{ site.baseurl }}/a.png", [("/a.png", 1, "a")]),
    "in an include": ('{% assign d = "/i" %}\n{% include figure.html src="{{ d }}/a.png" %}', [("/i/a.png", 2)]),
    "Hugo's tags": (
        '![a]({{< ref "a.png" >}}) <img src="{{% static "b.png" %}}"> ![c]({{< baseurl >}}/c.png)',
        [("a.png", 1, "a"), ("b.png", 1), ("/c.png", 1, "c")],
    ),
    "Jinja's call": ("![a]({{ url_for('static', filename='a.png') }})", [("a.png", 1, "a")]),
    "a setting of the site": ("![a]({{ site.images }}/a.png)", [("/a.png", 1, "a")]),
    "an address that is a variable": ("![a]({{ page.image }})", [("{{page.image}}", 1, "a")]),
    "comments": ("{% comment %}\n![](no.png)\n{% endcomment %}\nText.\n\n{::comment}![](no.png){:/comment}", ["Text."]),
    "raw": (
        '{% raw %}{{ x }} {% include figure.html src="no.png" %}{% endraw %} ![a](a.png)',
        ['{{ x }} {% include figure.html src="no.png" %}', ("a.png", 1, "a")],
    ),
    "conditions": ("{% if site.x %}\n![a](a.png)\n{% endif %}\nText.", [("a.png", 2, "a"), "Text."]),
    "a variable in a sentence stays": (
        "Version {{ site.version }} of {{ name }}.",
        ["Version {{ site.version }} of {{ name }}."],
    ),
    "Hugo's variables in a sentence stay": ("At {{ .Site.Title }}.", ["At {{ .Site.Title }}."]),
    "a known variable in a sentence": ('{% assign v = "1.2" %}Version {{ v }}.', ["Version 1.2."]),
    "code": ('```\n{% assign d = "/img" %}![a]({{ d }}/a.png)\n```', ['{% assign d = "/img" %}![a]({{ d }}/a.png)']),
}


@pytest.mark.parametrize("name", SHORTCODES)
def test_shortcodes(name, outline):
    text, expected = SHORTCODES[name]
    assert outline(text) == expected


@pytest.mark.parametrize("name", LIQUID)
def test_liquid(name, outline):
    text, expected = LIQUID[name]
    assert outline(text) == expected
