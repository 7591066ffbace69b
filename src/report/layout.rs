//! Where everything in a chart goes.

use super::canvas::{ACCENT, Color, INK, MUTED, RULE, width_of, wrap};
use super::chart::{Chart, ChartScale, Panel, Point, RATIO, Series, Style, category};
use super::frame::{Frame, LEFT, RIGHT, SMALL, number, round_step};
use super::scene::{Anchor, At, Scene, SceneShape, Sign, words};

/// A panel alone in its chart, and one of several: as narrow as their words allow, which are read on a phone too.
const WIDE: (f64, f64) = (520.0, 300.0);
const NARROW: (f64, f64) = (372.0, 250.0);
/// A panel on a page: where it fills a phone, its words have their own size.
const PAGE: (f64, f64) = (344.0, 240.0);
/// Space between panels, and around the chart.
const GAP: f64 = 24.0;
const MARGIN: f64 = 16.0;
/// Under the horizontal axis: ticks and its name.
const UNDER: f64 = 58.0;
const TITLE: f64 = 18.0;
const PANEL_TITLE: f64 = 15.5;
const WORDS: f64 = 14.5;
/// One row of names of series.
const KEY_ROW: f64 = 23.0;
/// One line of the vertical axis' name.
const AXIS_ROW: f64 = 18.0;
const KEY_SIGN: f64 = 30.0;
/// Names longer than this are cut without being measured.
const LONGEST_NAME: usize = 90;
/// Lines of more points than this have no marks.
const MOST_MARKS: usize = 60;

/// Small to large: dark blue, blue, green, ochre, red.
const SCALE: [(u8, u8, u8); 5] = [
    (0x1d, 0x2f, 0x6f),
    (0x2b, 0x7b, 0xba),
    (0x2a, 0xa1, 0x80),
    (0xdc, 0x9a, 0x1c),
    (0xc0, 0x35, 0x2b),
];
const THEIRS: Color = Color(0x7a, 0x7f, 0x88);
const SIGNS: [Sign; 5] = [Sign::Circle, Sign::Square, Sign::Diamond, Sign::Triangle, Sign::Down];

/// The whole chart.
pub fn scene(chart: &Chart) -> Scene {
    let columns = chart.panels.len().clamp(1, 2);
    let (width, plot) = if columns == 1 { WIDE } else { NARROW };
    let total = 2.0 * MARGIN + columns as f64 * (width + GAP) - GAP;
    let (mut shapes, mut y) = (Vec::new(), MARGIN);
    for line in wrap(&chart.title, TITLE, total - 2.0 * MARGIN) {
        shapes.push(words(line, TITLE, INK, Anchor::Left, (MARGIN, y + 0.5 * TITLE)));
        y += 1.35 * TITLE;
    }
    y += 6.0;
    let mut index = 0;
    for row in chart.panels.chunks(columns) {
        let heads = row.iter().map(|p| head_height(p, width)).fold(0.0, f64::max);
        for (c, panel) in row.iter().enumerate() {
            let x = MARGIN + c as f64 * (width + GAP);
            let frame = Frame::new(panel, x, y, width, heads, plot);
            shapes.extend(panel_shapes(panel, &frame, y, index));
            index += panel.series.len();
        }
        y += heads + plot + UNDER + 14.0;
    }
    for note in chart.notes() {
        for line in wrap(&note, SMALL, total - 2.0 * MARGIN) {
            shapes.push(words(line, SMALL, MUTED, Anchor::Left, (MARGIN, y + 0.5 * SMALL)));
            y += 1.3 * SMALL;
        }
        y += 0.3 * SMALL;
    }
    Scene { width: total, height: (y + 6.0).ceil(), shapes }
}

/// One panel without the chart's title and footer.
pub fn panel_scene(panel: &Panel) -> Scene {
    let (width, plot) = PAGE;
    let head = head_height(panel, width);
    let frame = Frame::new(panel, 4.0, 6.0, width, head, plot);
    let shapes = panel_shapes(panel, &frame, 6.0, 0);
    Scene { width: width + 8.0, height: (head + plot + UNDER + 6.0).ceil(), shapes }
}

/// Title, names of the series, name of the vertical axis.
fn head_height(panel: &Panel, width: f64) -> f64 {
    let title = wrap(&panel.title, PANEL_TITLE, width).len() as f64 * 1.3 * PANEL_TITLE;
    let rows = keys(panel, width).last().map_or(0, |k| k.row + 1);
    let axis = axis_name(panel, width).len() as f64 * AXIS_ROW;
    title + rows as f64 * KEY_ROW + axis + 14.0
}

/// How the lines of these panels are to be read, in a line each.
pub fn describe_lines(panels: &[Panel]) -> Vec<String> {
    let mut said = Vec::new();
    let mut say = |line: &str| {
        if !said.iter().any(|s| s == line) {
            said.push(line.to_string());
        }
    };
    for panel in panels {
        let (width, plot) = PAGE;
        let frame = Frame::new(panel, 0.0, 0.0, width, 0.0, plot);
        let lines = panel.series.iter().filter(|s| s.style != Style::Marks);
        let joined = |s: &Series| s.points.iter().filter(|p| frame.shows(p)).count() > 1;
        if !lines.into_iter().any(joined) {
            continue;
        }
        match (frame.straight_in_images, frame.log) {
            (true, true) => say(
                "lines: straight in the number of images between sizes, as the EMM is interpolated, so bent on the \
                 log axis",
            ),
            (true, false) => say("lines: straight between sizes, as the EMM is interpolated"),
            (false, true) => say("lines only join the points, straight on the log axis"),
            (false, false) => {}
        }
    }
    said
}

/// What the vertical axis shows, above it.
fn axis_name(panel: &Panel, width: f64) -> Vec<String> {
    let [low, high] = panel.y;
    let level = panel.level.filter(|l| (low..=high).contains(l));
    let dashed_is = level.map(|l| format!(" · dashed: 1 − ε = {}%", number(100.0 * l)));
    let name = panel.y_name.as_deref().unwrap_or(RATIO);
    wrap(&format!("{name}{}", dashed_is.unwrap_or_default()), SMALL, width)
}

/// Where a series' name stands.
struct Key {
    series: usize,
    name: String,
    /// All of a name that was cut.
    whole: String,
    x: f64,
    row: usize,
}

fn keys(panel: &Panel, width: f64) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let (mut x, mut row) = (0.0, 0);
    for (series, s) in panel.series.iter().enumerate().filter(|(_, s)| !s.name.is_empty()) {
        let end = match s.emm {
            Some(emm) => format!(" · EMM {} {}", about(s), number(emm.round())),
            None if s.points.is_empty() => " · none".into(),
            None => String::new(),
        };
        let shown = cut(&s.name, width - KEY_SIGN - width_of(&end, WORDS));
        let whole = if shown == s.name { String::new() } else { s.name.clone() };
        let name = shown + &end;
        let wide = KEY_SIGN + width_of(&name, WORDS) + 18.0;
        if x > 0.0 && x + wide > width {
            (x, row) = (0.0, row + 1);
        }
        keys.push(Key { series, name, whole, x, row });
        x += wide;
    }
    keys
}

/// As much of a name as `room` holds.
fn cut(name: &str, room: f64) -> String {
    let mut kept: String = name.chars().take(LONGEST_NAME).collect();
    if kept.len() == name.len() && width_of(name, WORDS) <= room {
        return kept;
    }
    while !kept.is_empty() && width_of(&format!("{kept}…"), WORDS) > room {
        kept.pop();
    }
    kept + "…"
}

fn panel_shapes(panel: &Panel, frame: &Frame, top: f64, first: usize) -> Vec<SceneShape> {
    let (mut shapes, mut y, x) = (Vec::new(), top, frame.left - LEFT);
    for line in wrap(&panel.title, PANEL_TITLE, frame.right + RIGHT - x) {
        shapes.push(words(line, PANEL_TITLE, INK, Anchor::Left, (x, y + 0.5 * PANEL_TITLE)));
        y += 1.3 * PANEL_TITLE;
    }
    for key in keys(panel, frame.right + RIGHT - x) {
        let pen = Pen::of(panel, key.series);
        let at = (x + key.x, y + 4.0 + key.row as f64 * KEY_ROW + 0.5 * WORDS);
        let mut sign = vec![words(key.name, WORDS, INK, Anchor::Left, (at.0 + KEY_SIGN, at.1))];
        if panel.series[key.series].style != Style::Marks {
            sign.push(pen.line(vec![at, (at.0 + 24.0, at.1)]));
        }
        sign.push(pen.mark((at.0 + 12.0, at.1), false));
        let series = Some(first + key.series);
        shapes.push(SceneShape::Group { class: "key", series, tip: key.whole, shapes: sign });
    }
    axes(&mut shapes, panel, frame);
    if let Some(why) = nothing(panel, frame) {
        let middle = ((frame.left + frame.right) / 2.0, (frame.top + frame.bottom) / 2.0);
        shapes.push(words(why, WORDS, INK, Anchor::Center, middle));
    }
    for (i, series) in panel.series.iter().enumerate() {
        let pen = Pen::of(panel, i);
        let inner = series_shapes(panel, series, frame, &pen);
        let series = Some(first + i);
        shapes.push(SceneShape::Group {
            class: "series",
            series,
            tip: String::new(),
            shapes: inner,
        });
    }
    shapes
}

/// What stands in a plot that has nothing of ours: axes alone look like a result.
fn nothing(panel: &Panel, frame: &Frame) -> Option<&'static str> {
    let shown = |ours: bool| {
        let of = |s: &&Series| (s.style != Style::Theirs) == ours;
        panel.series.iter().filter(of).flat_map(|s| &s.points).any(|p| frame.shows(p))
    };
    match (shown(true), shown(false)) {
        (true, _) => None,
        (false, false) => Some("nothing to show yet: no finished run"),
        (false, true) => Some("no finished run of ours yet"),
    }
}

/// Rules, ticks and names of both axes, and the level.
fn axes(shapes: &mut Vec<SceneShape>, panel: &Panel, frame: &Frame) {
    let x = frame.left - LEFT;
    let [low, high] = frame.y;
    for (i, line) in axis_name(panel, frame.right + RIGHT - x).into_iter().rev().enumerate() {
        let y = frame.top - 18.0 - AXIS_ROW * i as f64;
        shapes.push(words(line, SMALL, MUTED, Anchor::Left, (x, y)));
    }
    let step = round_step((high - low) * 100.0);
    let mut percent = (low * 100.0 / step).ceil() * step;
    while percent <= high * 100.0 + 1e-9 {
        let y = frame.y(percent / 100.0);
        let color = if percent == 0.0 { MUTED } else { RULE };
        shapes.push(rule((frame.left, y), (frame.right, y), color));
        let label = format!("{}%", number(percent));
        shapes.push(words(label, SMALL, MUTED, Anchor::Right, (frame.left - 7.0, y)));
        percent += step;
    }
    if low > 0.0 {
        let y = frame.bottom;
        shapes.push(rule((frame.left, y), (frame.right, y), MUTED));
    }
    for (value, label) in frame.ticks(panel) {
        let (x, y) = (frame.x(value), frame.bottom);
        shapes.push(rule((x, y), (x, y + 5.0), MUTED));
        shapes.push(words(label, SMALL, MUTED, Anchor::Center, (x, y + 17.0)));
    }
    let log = if frame.log { " (log scale)" } else { "" };
    let (middle, name) = ((frame.left + frame.right) / 2.0, format!("{}{log}", panel.x.name));
    shapes.push(words(name, WORDS, INK, Anchor::Center, (middle, frame.bottom + 40.0)));
    if let Some(level) = panel.level.filter(|l| (low..=high).contains(l)) {
        let y = frame.y(level);
        shapes.push(dashed(vec![(frame.left, y), (frame.right, y)], MUTED));
    }
}

/// Band, line, bars and marks, and where the line falls through the level.
fn series_shapes(panel: &Panel, series: &Series, frame: &Frame, pen: &Pen) -> Vec<SceneShape> {
    let mut points: Vec<&Point> = series.points.iter().filter(|p| frame.shows(p)).collect();
    if series.style != Style::Marks {
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    let mut shapes = Vec::new();
    let with_line = series.style != Style::Marks && points.windows(2).any(|w| w[0].x != w[1].x);
    let has_intervals = points.iter().all(|p| p.interval.is_some());
    let banded = with_line && has_intervals && series.style == Style::Line;
    if banded {
        let end = |i: usize| -> Vec<At> {
            points.iter().map(|p| (p.x, p.interval.map_or(p.y, |v| v[i]))).collect()
        };
        let mut path = frame.path(&end(0));
        path.extend(frame.path(&end(1)).into_iter().rev());
        shapes.push(SceneShape::Area { path, color: pen.color, opacity: 0.16 });
    }
    if with_line {
        let line: Vec<At> = points.iter().map(|p| (p.x, p.y)).collect();
        shapes.push(pen.line(frame.path(&line)));
    }
    let marked = points.len() <= MOST_MARKS;
    for &p in &points {
        let at = (frame.x(p.x) + aside(panel, series, frame, p), frame.y(p.y));
        let mut parts = Vec::new();
        if let Some([low, high]) = p.interval.filter(|_| !banded) {
            let (low, high) = (frame.y(low), frame.y(high));
            let bar = |path| SceneShape::Line { path, width: 1.3, color: pen.color, dashed: false };
            parts.push(bar(vec![(at.0, low), (at.0, high)]));
            for y in [low, high] {
                parts.push(bar(vec![(at.0 - 4.0, y), (at.0 + 4.0, y)]));
            }
        }
        if marked {
            parts.push(pen.mark(at, p.rising));
        }
        let tip = tip(panel, series, p);
        shapes.push(SceneShape::Group { class: "point", series: None, tip, shapes: parts });
    }
    if let (Some(emm), Some(level)) = (series.emm, panel.level)
        && frame.shows(&Point::new(emm, level))
    {
        shapes.extend(crossing(series, frame, (emm, level), pen));
    }
    shapes
}

/// How far a mark stands beside its category where there are others too, so that equal values are seen.
fn aside(panel: &Panel, series: &Series, frame: &Frame, mark: &Point) -> f64 {
    let (ChartScale::Categories(_), Style::Marks) = (&panel.x.scale, series.style) else {
        return 0.0;
    };
    let marks = panel.series.iter().filter(|s| s.style == Style::Marks).flat_map(|s| &s.points);
    let here: Vec<&Point> = marks.filter(|p| p.x == mark.x && frame.shows(p)).collect();
    let place = here.iter().position(|p| std::ptr::eq(*p, mark)).unwrap_or(0);
    let room = 0.8 * (frame.x(1.0) - frame.x(0.0)) / here.len() as f64;
    room.min(13.0) * (place as f64 - (here.len() - 1) as f64 / 2.0)
}

/// A dashed line down from where a line falls through the level; the value beside it if the series has no name.
fn crossing(series: &Series, frame: &Frame, (emm, level): At, pen: &Pen) -> Vec<SceneShape> {
    let (x, y) = (frame.x(emm), frame.y(level));
    let color = if series.name.is_empty() { ACCENT } else { pen.color };
    let mut shapes = vec![dashed(vec![(x, y), (x, frame.bottom)], color)];
    let mark = SceneShape::Mark { at: (x, y), radius: 3.6, sign: Sign::Circle, color, open: false };
    shapes.push(mark);
    // Of a series with a name, the name says it.
    if series.name.is_empty() {
        let (epsilon, emm) = (number(1.0 - level), number(emm.round()));
        let mut said = vec![format!("EMM(ε = {epsilon}) {} {emm}", about(series))];
        if let [Some(lo), Some(hi)] = series.around_emm() {
            said.push(format!("between {} and {}", number(lo.x), number(hi.x)));
            shapes.extend(bracket(frame, [lo.x, hi.x]));
        }
        shapes.extend(beside(frame, series, x, said));
    }
    shapes
}

/// Lines of words beside the vertical at `x`, where the series' line is not: low on the right, on the left, higher up,
/// and where the line falls as steeply as the vertical, on its other side.
fn beside(frame: &Frame, series: &Series, x: f64, said: Vec<String>) -> Vec<SceneShape> {
    const LINE: f64 = 20.0;
    let wide = said.iter().map(|s| width_of(s, WORDS)).fold(0.0, f64::max) + 8.0;
    let high = LINE * said.len() as f64;
    let mut points: Vec<&Point> = series.points.iter().filter(|p| frame.shows(p)).collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    let line = frame.path(&points.iter().map(|p| (p.x, p.y)).collect::<Vec<_>>());
    let lowest = frame.bottom - 8.0;
    let plot = frame.bottom - frame.top;
    let bottoms = [lowest, lowest - 0.3 * plot, lowest - 0.6 * plot];
    let near = bottoms.into_iter().flat_map(|bottom| [(true, 0.0, bottom), (false, 0.0, bottom)]);
    let away = [0.1, 0.2, 0.3].map(|share| share * (frame.right - frame.left));
    let places = near
        .chain(away.into_iter().flat_map(|away| bottoms.into_iter().map(move |b| (true, away, b))));
    let fits = |&(right, away, bottom): &(bool, f64, f64)| {
        let (from, to) = if right { (x + away, x + away + wide) } else { (x - wide, x) };
        let meets = |p: At| {
            (from..=to).contains(&p.0) && (bottom - high - 6.0..=bottom + 6.0).contains(&p.1)
        };
        let between =
            |w: &[At], t: f64| (w[0].0 + t * (w[1].0 - w[0].0), w[0].1 + t * (w[1].1 - w[0].1));
        let crossed = |w: &[At]| (0..=16).any(|i| meets(between(w, i as f64 / 16.0)));
        from >= frame.left && to <= frame.right + RIGHT && !line.windows(2).any(crossed)
    };
    let otherwise = (x < frame.left + wide, 0.0, lowest);
    let (right, away, bottom) = places.into_iter().find(fits).unwrap_or(otherwise);
    let (anchor, at) =
        if right { (Anchor::Left, x + away + 8.0) } else { (Anchor::Right, x - 8.0) };
    let rows = said.into_iter().rev().enumerate();
    rows.map(|(i, line)| words(line, WORDS, ACCENT, anchor, (at, bottom - LINE * (i as f64 + 0.5))))
        .collect()
}

/// The sizes that the EMM lies between, on the horizontal axis.
fn bracket(frame: &Frame, ends: [f64; 2]) -> Vec<SceneShape> {
    let [low, high] = ends.map(|x| frame.x(x));
    let line = |path| SceneShape::Line { path, width: 3.0, color: ACCENT, dashed: false };
    let end = |x| line(vec![(x, frame.bottom - 6.0), (x, frame.bottom)]);
    vec![line(vec![(low, frame.bottom), (high, frame.bottom)]), end(low), end(high)]
}

/// How the EMM of a series is to be read.
fn about(series: &Series) -> &'static str {
    if series.emm_at_least() { "≥" } else { "≈" }
}

/// What a point says when it is asked.
fn tip(panel: &Panel, series: &Series, p: &Point) -> String {
    let mut tip = String::new();
    if !series.name.is_empty() {
        tip += &format!("{} · ", series.name);
    }
    match &panel.x.scale {
        ChartScale::Categories(names) => tip += category(names, p.x),
        _ => tip += &format!("{} {}", number(p.x), panel.x.name),
    }
    tip += &format!(": {:.2}%", 100.0 * p.y);
    if let Some([low, high]) = p.interval {
        tip += &format!(" ({:.2}% to {:.2}%)", 100.0 * low, 100.0 * high);
    }
    if p.rising {
        tip += ", still rising at the last evaluation";
    }
    tip
}

/// How a series is drawn.
struct Pen {
    color: Color,
    sign: Sign,
    style: Style,
    radius: f64,
}

impl Pen {
    /// Ours differ in colour and sign; others' have the colour of what they stand beside, or are grey.
    fn of(panel: &Panel, index: usize) -> Pen {
        let ours = |s: &&Series| s.style != Style::Theirs;
        let style = panel.series[index].style;
        let count = panel.series.iter().filter(ours).count();
        let place = panel.series[..index].iter().filter(ours).count();
        let radius: f64 = match style {
            Style::Marks => 5.4,
            _ if panel.series[index].points.len() > 12 => 2.6,
            _ => 3.8,
        };
        match style {
            Style::Theirs => {
                let beside = panel.series[index].beside;
                let beside = beside.filter(|&i| panel.series.get(i).as_ref().is_some_and(ours));
                let color = beside.map_or(THEIRS, |i| Pen::of(panel, i).color);
                Pen { color, sign: Sign::Cross, style, radius: radius.max(3.8) }
            }
            _ => {
                let color = along_scale(place, count);
                Pen { color, sign: SIGNS[place % SIGNS.len()], style, radius }
            }
        }
    }

    fn line(&self, path: Vec<At>) -> SceneShape {
        let (width, dashed) = if self.style == Style::Theirs { (1.3, true) } else { (2.1, false) };
        SceneShape::Line { path, width, color: self.color, dashed }
    }

    fn mark(&self, at: At, open: bool) -> SceneShape {
        SceneShape::Mark { at, radius: self.radius, sign: self.sign, color: self.color, open }
    }
}

fn rule(from: At, to: At, color: Color) -> SceneShape {
    SceneShape::Line { path: vec![from, to], width: 1.0, color, dashed: false }
}

fn dashed(path: Vec<At>, color: Color) -> SceneShape {
    SceneShape::Line { path, width: 1.3, color, dashed: true }
}

/// The colour of series `i` of `n`.
fn along_scale(i: usize, n: usize) -> Color {
    let place = i as f64 / (n.max(2) - 1) as f64 * (SCALE.len() - 1) as f64;
    let k = (place as usize).min(SCALE.len() - 2);
    let mix = |a: u8, b: u8| (a as f64 + (place - k as f64) * (b as f64 - a as f64)).round() as u8;
    let (a, b) = (SCALE[k], SCALE[k + 1]);
    Color(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}
