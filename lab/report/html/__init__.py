"""Reports as pages: one HTML file each, that needs no script and asks for nothing from anywhere.

- `document`: the frame of all pages. `blocks`: the terminal's sections as HTML, with the same words.
- `run_page`: the page of a run, from its sections.
- `cycles`: cards of cycles, with their pictures: `timeline`, `resync`, `parts`. `matrix`: a heat table, and a
    card for each cell. `clocks`: offsets and drift. `fleet`: a rollout. `workloads`: with their searches.
- `findings`, `machine`, `downloads`: all checks, the host, files inside of the page.
- `axis`: places on a picture's axes.
- `templates/`: base.html.j2 and page.css of all pages, parts.html.j2 with macros, one file a picture.

Another page is made like this:

    from lab.report.files import write_whole
    from lab.report.html.blocks import printed
    from lab.report.html.document import PageSection, Tile, page

    sections = [
        # A section of the terminal: a function that prints to a lab.report.page.Page.
        PageSection("figures", "Figures", printed(lambda page: show_figures(page, comparison))),
        # A template of its own in templates/; `markup` escapes all values. There, parts.badge(outcome) and
        # parts.table(heads, rows) come with {% import "parts.html.j2" as parts %}.
        PageSection("nights", "Nights", markup("nights.html.j2", nights=nights), lead="A sentence."),
    ]
    text = page("title", outcome_or_None, "a sentence", sections, tiles=[Tile("label", "value", "note")])
    write_whole(path, text.encode())

Texts of guests and playbooks are `cleaned` (lab.report.text) before; the templates escape markup in them.
A picture is an SVG whose horizontal places are in percent (`axis.Span`), with role="img", <title> and <desc>.
Colours come from the variables in page.css, which has a dark and a printed form of each.
"""
