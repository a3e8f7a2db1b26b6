package main

import (
	"fmt"
	"html"
	"math"
	"strings"

	"muster/cells"
)

// The measures of a picture, in pixels.
const (
	left, right, top, bottom = 64, 24, 92, 64
	plotHeight               = 260
	maxBar, minBar, barGap   = 26, 5, 2
	zoneGap                  = 28
	minZone                  = 150 // room for what is written below
	minWidth                 = 680
)

// style fits light and dark pages: the picture follows what the reader prefers.
const style = `<style>
  .page { fill: #ffffff } .text { fill: #1f2328 } .quiet { fill: #59636e } .grid { stroke: #d1d9e0 } .axis { stroke: #59636e }
  .old { fill: #8c959f } .new { fill: #0969da } .gone { fill: none; stroke: #bc4c00; stroke-dasharray: 3 2 } .room { fill: #eff2f5 }
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif } .title { font-size: 16px; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .text { fill: #f0f6fc } .quiet { fill: #9198a1 } .grid { stroke: #3d444d } .axis { stroke: #9198a1 }
    .old { fill: #656c76 } .new { fill: #4493f8 } .gone { stroke: #db6d28 } .room { fill: #151b23 }
  }
</style>
`

// picture draws cells as bars, zone by zone: what was in use before, and what came.
type picture struct {
	strings.Builder
	report
	bar, width int
}

// svg draws the report.
func (r report) svg() string {
	p := &picture{report: r, bar: maxBar}
	names := zones(r.after)
	room := func() int {
		all := left + right - zoneGap
		for _, z := range names {
			all += p.zoneWidth(z) + zoneGap
		}
		return all
	}
	for p.bar > minBar && room() > 1200 {
		p.bar--
	}
	p.width = max(room(), minWidth)
	height := top + plotHeight + bottom
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`+"\n", p.width, height, p.width, height, html.EscapeString(r.name+": "+r.about))
	p.WriteString(style)
	fmt.Fprintf(p, `<rect class="page" width="%d" height="%d"/>`+"\n", p.width, height)
	p.heading()
	most := p.axis()
	x := left
	for _, z := range names {
		x = p.zone(z, x, most)
	}
	p.WriteString("</svg>\n")
	return p.String()
}

func (p *picture) text(class string, x, y int, anchor, text string) {
	fmt.Fprintf(p, `<text class="%s" x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", class, x, y, anchor, html.EscapeString(text))
}

func (p *picture) heading() {
	p.text("text title", left-44, 26, "start", p.name)
	p.text("quiet", left-44, 45, "start", p.about)
	summary := fmt.Sprintf("placed %d, refused %d", len(p.result.Placed), len(p.result.Refused))
	if p.moves > 0 {
		summary = fmt.Sprintf("moved %d", p.moves)
	}
	p.text("quiet", left-44, 62, "start", fmt.Sprintf("%s; standard deviation / mean of the memory in use: %.3f before, %.3f after", summary, uneven(p.before), uneven(p.after)))
	x := left
	for _, l := range []struct{ class, text string }{{"old", "stayed"}, {"new", "came"}, {"gone", "left"}, {"room", "free"}} {
		if l.class == "gone" && p.moves == 0 {
			continue
		}
		fmt.Fprintf(p, `<rect class="%s" x="%d" y="%d" width="11" height="11"/>`+"\n", l.class, x, 71)
		p.text("text", x+16, 81, "start", l.text)
		x += 72
	}
}

// axis draws the vertical axis and returns the memory at its end, in MB.
func (p *picture) axis() float64 {
	most := 0.0
	for _, s := range p.after {
		most = max(most, float64(s.Capacity.MemoryMB))
	}
	step := niceStep(most / 5)
	most = math.Ceil(most/step) * step
	for v := 0.0; v <= most; v += step {
		y := height(v, most)
		fmt.Fprintf(p, `<line class="grid" x1="%d" x2="%d" y1="%d" y2="%d"/>`+"\n", left-6, p.width-right, y, y)
		p.text("quiet", left-10, y+4, "end", fmt.Sprint(v))
	}
	fmt.Fprintf(p, `<text class="text" transform="translate(18 %d) rotate(-90)" text-anchor="middle">memory in use (MB)</text>`+"\n", top+plotHeight/2)
	return most
}

// niceStep rounds up to 1, 2 or 5 times a power of ten.
func niceStep(v float64) float64 {
	p := math.Pow10(int(math.Floor(math.Log10(max(v, 1)))))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*p {
			return m * p
		}
	}
	return 10 * p
}

// height is where an amount is on the vertical axis.
func height(v, most float64) int { return top + plotHeight - int(math.Round(v/most*plotHeight)) }

// zoneWidth is how wide a zone is.
func (p *picture) zoneWidth(name string) int {
	cells, _ := p.of(name)
	return max(len(cells)*(p.bar+barGap), minZone)
}

// zone draws the cells of a zone and returns where the next begins.
func (p *picture) zone(name string, x int, most float64) int {
	begin, n := x, 0
	for i, s := range p.after {
		if s.Zone != name {
			continue
		}
		p.cell(p.before[i], s, x, most)
		if p.bar >= 20 || n%5 == 0 {
			p.text("quiet", x+p.bar/2, top+plotHeight+15, "middle", strings.TrimPrefix(string(s.Cell), "REP-"))
		}
		x, n = x+p.bar+barGap, n+1
	}
	y := top + plotHeight
	x = begin + p.zoneWidth(name)
	fmt.Fprintf(p, `<line class="axis" x1="%d" x2="%d" y1="%d" y2="%d"/>`+"\n", begin-2, x, y, y)
	after, before := p.of(name)
	instances, was := 0, 0
	for i := range after {
		instances, was = instances+len(after[i].Instances), was+len(before[i].Instances)
	}
	p.text("text", (begin+x)/2, y+34, "middle", "cells of zone "+name)
	p.text("quiet", (begin+x)/2, y+51, "middle", fmt.Sprintf("%d instances (%+d)", instances, instances-was))
	return x + zoneGap
}

// cell draws one cell.
func (p *picture) cell(before, after cells.State, x int, most float64) {
	bar := func(class string, from, to float64) {
		if to > from {
			fmt.Fprintf(p, `<rect class="%s" x="%d" y="%d" width="%d" height="%d"/>`+"\n", class, x, height(to, most), p.bar, height(from, most)-height(to, most))
		}
	}
	was, is := float64(memory(before)), float64(memory(after))
	fmt.Fprintf(p, "<g><title>%s</title>\n", html.EscapeString(fmt.Sprintf("%s: %g MB before, %g MB after, of %d", after.Cell, was, is, after.Capacity.MemoryMB)))
	bar("room", 0, float64(after.Capacity.MemoryMB))
	bar("old", 0, min(was, is))
	bar("new", was, is)
	bar("gone", is, was)
	p.WriteString("</g>\n")
}
