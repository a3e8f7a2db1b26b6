package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
)

// chart is lines over the number of instances, which grows by factors: the axis below is logarithmic,
// the other one begins at 0.
type chart struct {
	file, title, unit string
	bound             float64 // a line across: what is asked for; 0: none
	series            []series
}

type series struct {
	name   string
	points []point
}

type point struct{ x, y float64 }

// The size of a chart and of what is around the lines, in pixels.
const (
	width, height            = 720, 400
	left, right, top, bottom = 84, 170, 48, 52
)

// colors are those of the lines, told apart by people who see colors differently, too.
func color(i int) string {
	return []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"}[i%6]
}

// svg draws the chart.
func (c chart) svg() string {
	xs, high := []float64{}, c.bound
	for _, s := range c.series {
		for _, p := range s.points {
			xs, high = append(xs, p.x), max(high, p.y)
		}
	}
	if len(xs) == 0 {
		return ""
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	step := niceStep(high / 5)
	high = math.Ceil(high*1.001/step) * step
	x := func(v float64) float64 {
		if len(xs) == 1 {
			return (left + width - right) / 2
		}
		return left + (width-left-right)*math.Log(v/xs[0])/math.Log(xs[len(xs)-1]/xs[0])
	}
	y := func(v float64) float64 { return height - bottom - (height-top-bottom)*v/high }

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	text(&b, left, 26, "start", c.title+", "+c.unit, ` font-size="15" font-weight="bold"`)
	for v := 0.0; v <= high+step/2; v += step {
		line := `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>` + "\n"
		fmt.Fprintf(&b, line, left, width-right, y(v), y(v))
		text(&b, left-8, y(v)+4, "end", short(v), "")
	}
	for _, v := range xs {
		text(&b, x(v), height-bottom+18, "middle", short(v), "")
	}
	text(&b, (left+width-right)/2, height-14, "middle", "instances", "")
	if c.bound > 0 {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#666" stroke-dasharray="5 4"/>`+"\n", left, width-right, y(c.bound), y(c.bound))
		text(&b, width-right+8, y(c.bound)+4, "start", "asked for: "+short(c.bound), ` fill="#666"`)
	}
	for i, s := range c.series {
		c.draw(&b, i, s, x, y)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (c chart) draw(b *strings.Builder, i int, s series, x, y func(float64) float64) {
	var path []string
	for _, p := range s.points {
		path = append(path, fmt.Sprintf("%.1f,%.1f", x(p.x), y(p.y)))
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", x(p.x), y(p.y), color(i))
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(path, " "), color(i))
	legend := float64(top + 18*i)
	fmt.Fprintf(b, `<rect x="%d" y="%.1f" width="12" height="4" fill="%s"/>`+"\n", width-right+12, legend-4, color(i))
	text(b, width-right+30, legend+2, "start", s.name, "")
}

func text(b *strings.Builder, x, y float64, anchor, words, more string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>`+"\n", x, y, anchor, more, html.EscapeString(words))
}

// niceStep returns the next number of 1, 2 or 5 times a power of ten.
func niceStep(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*power {
			return m * power
		}
	}
	return 10 * power
}

// short writes a number in few characters.
func short(v float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e6, "M"}, {1e3, "k"}} {
		if v >= u.size {
			return strconv.FormatFloat(math.Round(v/u.size*100)/100, 'f', -1, 64) + u.name
		}
	}
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}
