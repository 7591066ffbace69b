//! A drawn scene as a PDF page: its paths, words as outlines, so that it looks alike everywhere and needs no font.

use anyhow::Result;
use pdf_writer::types::{LineCapStyle, LineJoinStyle};
use pdf_writer::{Content, Finish as _, Name, Pdf, Rect, Ref};
use resvg::tiny_skia::{PathSegment, Point, Transform};
use resvg::usvg::{FillRule, Group, LineCap, LineJoin, Node, Paint, Path, Tree};

const CATALOG: Ref = Ref::new(1);
const PAGES: Ref = Ref::new(2);
const PAGE: Ref = Ref::new(3);
const CONTENT: Ref = Ref::new(4);
/// Graphics states begin here, an opacity each.
const STATES: i32 = 5;

/// A file of one page, as large as the scene: a unit of it is a point.
pub fn pdf(tree: &Tree) -> Result<Vec<u8>> {
    let (width, height) = (tree.size().width(), tree.size().height());
    let mut page = PdfPage { content: Content::new(), opacities: Vec::new(), height };
    page.group(tree.root())?;
    let mut pdf = Pdf::new();
    pdf.catalog(CATALOG).pages(PAGES);
    pdf.pages(PAGES).kids([PAGE]).count(1);
    let mut sheet = pdf.page(PAGE);
    sheet.parent(PAGES).media_box(Rect::new(0.0, 0.0, width, height)).contents(CONTENT);
    let mut resources = sheet.resources();
    let mut states = resources.ext_g_states();
    for (i, _) in page.opacities.iter().enumerate() {
        states.pair(Name(state_name(i).as_bytes()), Ref::new(STATES + i as i32));
    }
    states.finish();
    resources.finish();
    sheet.finish();
    for (i, &[fill, stroke]) in page.opacities.iter().enumerate() {
        let mut state = pdf.ext_graphics(Ref::new(STATES + i as i32));
        state.non_stroking_alpha(fill).stroking_alpha(stroke);
    }
    pdf.stream(CONTENT, &page.content.finish());
    Ok(pdf.finish())
}

fn state_name(i: usize) -> String {
    format!("o{i}")
}

struct PdfPage {
    content: Content,
    /// Of fills and strokes, each pair once.
    opacities: Vec<[f32; 2]>,
    height: f32,
}

impl PdfPage {
    fn group(&mut self, group: &Group) -> Result<()> {
        for node in group.children() {
            match node {
                Node::Group(inner) => self.group(inner)?,
                Node::Path(path) => self.path(path)?,
                Node::Text(text) => self.group(text.flattened())?,
                Node::Image(_) => anyhow::bail!("a picture in a scene"),
            }
        }
        Ok(())
    }

    fn path(&mut self, path: &Path) -> Result<()> {
        if !path.is_visible() {
            return Ok(());
        }
        let (fill, stroke) = (path.fill(), path.stroke());
        let opacity =
            [fill.map_or(1.0, |f| f.opacity().get()), stroke.map_or(1.0, |s| s.opacity().get())];
        self.content.save_state();
        let known = self.opacities.iter().position(|o| *o == opacity);
        let state = known.unwrap_or(self.opacities.len());
        if known.is_none() {
            self.opacities.push(opacity);
        }
        self.content.set_parameters(Name(state_name(state).as_bytes()));
        if let Some(fill) = fill {
            let [r, g, b] = color(fill.paint())?;
            self.content.set_fill_rgb(r, g, b);
        }
        let at = path.abs_transform();
        if let Some(stroke) = stroke {
            let [r, g, b] = color(stroke.paint())?;
            self.content.set_stroke_rgb(r, g, b);
            self.content.set_line_width(stroke.width().get() * at.get_scale().0);
            let dashes = stroke.dasharray().unwrap_or(&[]);
            self.content.set_dash_pattern(dashes.iter().copied(), stroke.dashoffset());
            self.content.set_line_cap(match stroke.linecap() {
                LineCap::Butt => LineCapStyle::ButtCap,
                LineCap::Round => LineCapStyle::RoundCap,
                LineCap::Square => LineCapStyle::ProjectingSquareCap,
            });
            self.content.set_line_join(match stroke.linejoin() {
                LineJoin::Round => LineJoinStyle::RoundJoin,
                LineJoin::Bevel => LineJoinStyle::BevelJoin,
                LineJoin::Miter | LineJoin::MiterClip => LineJoinStyle::MiterJoin,
            });
        }
        self.outline(path, at);
        let even_odd = fill.is_some_and(|f| f.rule() == FillRule::EvenOdd);
        match (fill.is_some(), stroke.is_some(), even_odd) {
            (true, true, true) => self.content.fill_even_odd_and_stroke(),
            (true, true, false) => self.content.fill_nonzero_and_stroke(),
            (true, false, true) => self.content.fill_even_odd(),
            (true, false, false) => self.content.fill_nonzero(),
            (false, true, _) => self.content.stroke(),
            (false, false, _) => self.content.end_path(),
        };
        self.content.restore_state();
        Ok(())
    }

    /// PDF counts upwards.
    fn outline(&mut self, path: &Path, at: Transform) {
        let height = self.height;
        let place = |mut p: Point| {
            at.map_point(&mut p);
            [p.x, height - p.y]
        };
        let mut last = Point::default();
        for segment in path.data().segments() {
            match segment {
                PathSegment::MoveTo(p) => {
                    let [x, y] = place(p);
                    self.content.move_to(x, y);
                    last = p;
                }
                PathSegment::LineTo(p) => {
                    let [x, y] = place(p);
                    self.content.line_to(x, y);
                    last = p;
                }
                PathSegment::QuadTo(c, p) => {
                    // As a cubic: its controls lie two thirds of the way to the one of the quadratic.
                    let toward = |end: Point| {
                        place(Point {
                            x: end.x + (c.x - end.x) * 2.0 / 3.0,
                            y: end.y + (c.y - end.y) * 2.0 / 3.0,
                        })
                    };
                    let ([x1, y1], [x2, y2], [x, y]) = (toward(last), toward(p), place(p));
                    self.content.cubic_to(x1, y1, x2, y2, x, y);
                    last = p;
                }
                PathSegment::CubicTo(a, b, p) => {
                    let ([x1, y1], [x2, y2], [x, y]) = (place(a), place(b), place(p));
                    self.content.cubic_to(x1, y1, x2, y2, x, y);
                    last = p;
                }
                PathSegment::Close => {
                    self.content.close_path();
                }
            }
        }
    }
}

/// Scenes are drawn in plain colours.
fn color(paint: &Paint) -> Result<[f32; 3]> {
    match paint {
        Paint::Color(c) => Ok([c.red, c.green, c.blue].map(|v| v as f32 / 255.0)),
        _ => anyhow::bail!("a gradient in a scene"),
    }
}
