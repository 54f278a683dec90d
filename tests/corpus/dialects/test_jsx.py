"""MDX of Docusaurus, Nextra, Starlight, Mintlify and Astro, and bound attributes of VuePress."""

import pytest

CASES = {
    "an imported picture": (
        "import lid from './a.png'\n\n<img src={lid} alt=\"Lid\"/>\n\n<Image src={lid.src} />",
        [("./a.png", 3, "Lid"), ("./a.png", 5)],
    ),
    "an imported component": (
        "import Logo from './logo.svg';\n\nThe <Logo width={20}/> logo.",
        ["The logo.", ("./logo.svg", 3)],
    ),
    "require": ("<img src={require('./a.png').default} alt=\"Lid\" />", [("./a.png", 1, "Lid")]),
    "require in a sentence": (
        "Press <img src={require('@site/static/a.png').default} /> now.",
        ["Press now.", ("@site/static/a.png", 1)],
    ),
    "useBaseUrl": ("<img src={useBaseUrl('/img/a.png')} />", [("/img/a.png", 1)]),
    "useBaseUrl without a suffix": ("<img src={useBaseUrl('/img/a')} />", [("/img/a", 1)]),
    "a template without values": ("<img src={`/img/a.png`} />", [("/img/a.png", 1)]),
    "light comes before dark": (
        "<ThemedImage\n  alt='T'\n  sources={{\n    dark: useBaseUrl('/d.png'),\n"
        "    light: useBaseUrl('/l.png'),\n  }}\n/>",
        [("/l.png", 1, "T")],
    ),
    "components with an address": (
        '<Image src="/a.png" alt="A" width={300} />\n\n<Card title="T" img="/b.png">Words</Card>',
        [("/a.png", 1, "A"), ("/b.png", 3, "T"), "Words"],
    ),
    "a component's own name for it": (
        "import lid from './a.png'\n\n<Image img={lid} />\n\n<Image img={require('./b.png')} alt='B' />",
        [("./a.png", 3), ("./b.png", 5, "B")],
    ),
    "over several lines": (
        '<img\n  src={require("./a.png").default}\n  alt="A"\n/>\n\n![b](b.png)',
        [("./a.png", 1, "A"), ("b.png", 6, "b")],
    ),
    "a frame's caption": ('<Frame caption="The lid">\n  <img src="/a.png" />\n</Frame>', [("/a.png", 2, "The lid")]),
    "styles and events": ("<img src='/a.png' style={{width: '3px'}} onClick={() => go()} />", [("/a.png", 1)]),
    "what code computes is counted": (
        "<img src={`${base}/a.png`} />\n\n<img src={props.src} />\n\n<Image src={a + b} />",
        [("unsupported", 1), ("unsupported", 3), ("unsupported", 5)],
    ),
    "tabs without blank lines": (
        '<Tabs>\n  <TabItem value="x" label="X">\n    ![Lid](./a.png)\n  </TabItem>\n</Tabs>\n\nAfter.',
        [("./a.png", 3, "Lid"), "After."],
    ),
    "tabs with blank lines": (
        "<Tabs>\n  <TabItem>\n\n    Text ![a](a.png)\n\n    ```js\n    let x\n    ```\n\n    :::note\n"
        "    ![b](b.png)\n    :::\n\n"
        "  </TabItem>\n</Tabs>",
        ["Text", ("a.png", 4, "a"), "let x", ("b.png", 11, "b")],
    ),
    "imports, exports and comments are no sentences": (
        "---\ntitle: T\n---\nimport A, {B} from '@x/y';\nimport {\n  C,\n} from 'z'\nimport 'w.css'\n\n"
        "export const meta = {\n  words: 'no',\n\n  more: 1,\n};\n\n# Head\n\n{/* ![](no.png) */}\n\n"
        "Text {props.x}{' '}here.",
        ["Head", "Text here."],
    ),
    "a picture in an export": ("export const Fig = () => <img src='a.png' />;\n\nText.", [("a.png", 1), "Text."]),
    "brackets of an export that do not close": (
        "export const a = 'a (';\n\nText ![b](b.png)\n\nMore.",
        ["Text", ("b.png", 3, "b"), "More."],
    ),
    "a component in an expression": (
        "import A from 'a'\n\n{on && <ThemedImage sources={{light: '/l.png', dark: '/d.png'}} />}",
        [("/l.png", 3)],
    ),
    "a picture in an expression": (
        "import A from 'a'\n\n{on && <img src={require('./a.png')} />}\n\nText.",
        [("./a.png", 3), "Text."],
    ),
    "a component with a dot and a fragment": (
        "<>\n<Tabs.Tab title={1}>\nIn ![a](a.png)\n</Tabs.Tab>\n</>",
        ["In", ("a.png", 3, "a")],
    ),
    "code": (
        "```jsx\nimport a from './a.png'\n<img src={a}/>\n```\n\n`<img src={a}/>`",
        ["import a from './a.png'\n<img src={a}/>", "<img src={a}/>"],
    ),
    "a sentence that begins with import": (
        "import duties from the port are due.",
        ["import duties from the port are due."],
    ),
    "braces of plain Markdown": ("Write {name} here.", ["Write {name} here."]),
    "indented code of plain Markdown": ("A <b>x</b>.\n\n    ![](no.png)", ["A x.", "![](no.png)"]),
    "VuePress": (
        '<img :src="$withBase(\'/a.png\')" alt="A">\n\n<img v-bind:src="name" @click="x">',
        [("/a.png", 1, "A"), ("unsupported", 3)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_jsx(name, outline):
    text, expected = CASES[name]
    assert outline(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<img\n  src="a.png"\n  alt="x"\n>\n\nT', [("a.png", 1, "x"), "T"]),
        ('<Image\n  src="a.png"\n  alt="x"\n></Image>\n\nT', [("a.png", 1, "x"), "T"]),
        ('<Figure src="a.png" caption="C" />\n\n![y](b.png)', [("a.png", 1, "C"), ("b.png", 3, "y")]),
        ("import A from './a.svg'\n\n<A.ReactComponent />", [("./a.svg", 3)]),
        ('<img v-bind:src="url">', [("unsupported", 1)]),
        ("<img v-bind:src=\"require('./a.png')\">", [("./a.png", 1)]),
        ("export const F = ({src}) => (\n  <img src={src} />\n);\n\nT", [("unsupported", 2), "T"]),
        ("export const F = () => (\n  <b>\n    <img\n      src='a.png'/>\n  </b>\n);\n\nT", [("a.png", 3), "T"]),
    ],
)
def test_tags_over_lines_bound_attributes_and_statements_show_their_images(outline, text, expected):
    assert outline(text) == expected
