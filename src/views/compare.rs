//! Two networks from the same noise, as a table, as JSON, as a chart and on a sheet.

use super::words::percent;
use crate::memorization::{Score, Threshold};
use crate::report::{
    Cell, Chart, ChartScale, Compared, Panel, Point, Series, Sheet, SheetOf, Style, Table, sheets,
};
use crate::study::compare::{Alike, Comparison, Verdict, distance};
use anyhow::Result;
use serde_json::{Value, json};

/// Seeds on the sheet: the first ones, not chosen.
const ROWS: usize = 16;
/// Distances at which the chart's curves are drawn.
const STEPS: usize = 100;

/// What two networks are called, A first.
pub const NAMES: [&str; 2] = ["A", "B"];

/// A comparison to be drawn and written.
pub struct CompareView<'a> {
    pub comparison: &'a Comparison<'a>,
    /// The networks and the sets, as they were given.
    pub networks: [String; 2],
    /// The networks' files.
    pub files: [String; 2],
    pub sets: [String; 2],
    /// Whether each network was trained on other images than its set; none where its file does not say.
    pub foreign: [Option<bool>; 2],
    pub steps: usize,
}

impl CompareView<'_> {
    /// How each network stands to its own set and to the other's.
    pub fn networks(&self) -> Table {
        let c = self.comparison;
        let mut table = Table::new(&["", "A", "B"]);
        let mut row = |name: &str, of: &dyn Fn(usize) -> Cell| {
            table.row(vec![Cell::Text(name.into()), of(0), of(1)]);
        };
        let share = |s: &Score| {
            let [low, high] = s.interval.map(percent);
            Cell::Text(format!("{} ({low} to {high})", percent(s.ratio)))
        };
        row("training images", &|k| Cell::Integer(c.sets[k].len() as i64));
        row("copies of its own set (95%)", &|k| share(&c.scores[k][k]));
        row("copies of the other's set (95%)", &|k| share(&c.scores[k][1 - k]));
        row("distance to the nearest of its own set", &|k| Cell::Number(c.scores[k][k].mean_d1, 2));
        row("distance to the nearest of the other's", &|k| {
            Cell::Number(c.scores[k][1 - k].mean_d1, 2)
        });
        row("cosine with the nearest of its own set", &|k| cosine(c.mean_cosine(&c.to_own[k])));
        row("of its own set, an image to its nearest other", &|k| Cell::Number(c.within[k], 2));
        table
    }

    /// How alike samples are.
    pub fn pairs(&self) -> Table {
        let c = self.comparison;
        let mut table = Table::new(&["A's sample and B's", "pairs", "distance", "cosine"]);
        for (name, of) in [("of the same seed", &c.paired), ("of different seeds", &c.unpaired)] {
            table.row(vec![
                Cell::Text(name.into()),
                Cell::Integer(of.len() as i64),
                Cell::Number(c.mean_distance(of), 2),
                cosine(c.mean_cosine(of)),
            ]);
        }
        table
    }

    /// What a reader must know before believing the numbers.
    pub fn notes(&self) -> Vec<String> {
        let c = self.comparison;
        let mut notes = Vec::new();
        if c.same_network {
            notes
                .push("A and B are the same network, whose samples are equal by themselves".into());
        }
        for ((name, set), foreign) in NAMES.iter().zip(&self.sets).zip(self.foreign) {
            if foreign == Some(true) {
                notes.push(format!("{name} was trained on other images or labels than {set}"));
            }
        }
        if c.shared > 0 {
            let (shared, of) = (c.shared, c.sets[1].len());
            notes.push(format!(
                "{shared} of {of} images of {} are in {}, too: of what both have seen alike samples say nothing",
                self.sets[1], self.sets[0]
            ));
        }
        notes
    }

    fn verdict(&self) -> Option<Verdict> {
        self.comparison.verdict().filter(|_| !self.foreign.contains(&Some(true)))
    }

    /// What the samples say, in a sentence; none where they say nothing.
    pub fn said(&self) -> Option<String> {
        let c = self.comparison;
        let relative =
            c.relative().map_or("equal".into(), |r| format!("{r:.2} times as far apart"));
        let nearer = percent(c.nearer_to_each_other() as f64 / c.seeds.len() as f64);
        Some(match self.verdict()? {
            Verdict::Alike => format!(
                "alike: of {nearer} of the seeds A's and B's samples are nearer to each other than either to its own \
                 training set; samples of one seed are {relative} as those of different seeds"
            ),
            Verdict::OwnSets => format!(
                "each repeats its own set: {} of A's samples and {} of B's are copies; samples of one seed are {relative} \
                 as those of different seeds",
                percent(c.scores[0][0].ratio),
                percent(c.scores[1][1].ratio)
            ),
            Verdict::Far => format!(
                "no verdict: samples lie {:.1} (A) and {:.1} (B) times as far from their training images as those from one \
                 another, as of networks that have not learnt them",
                c.farness(0),
                c.farness(1)
            ),
            Verdict::Neither => format!(
                "neither copies of their own sets nor alike: of {nearer} of the seeds the two samples are nearer to each other \
                 than either to its own training set; samples of one seed are {relative} as those of different seeds"
            ),
        })
    }

    /// As `emm compare --json` prints it.
    pub fn json(&self) -> Value {
        let c = self.comparison;
        let network = |k: usize| {
            let (own, other) = (&c.scores[k][k], &c.scores[k][1 - k]);
            json!({
                "network": self.networks[k],
                "file": self.files[k],
                "data": self.sets[k],
                "foreign_data": self.foreign[k],
                "train_images": own.reference_images,
                "train_duplicates": own.reference_duplicates,
                "memorized": own.memorized,
                "ratio": own.ratio,
                "interval": own.interval,
                "ratio_distinct": own.ratio_distinct,
                "mean_d1": own.mean_d1,
                "cosine_to_nearest": c.mean_cosine(&c.to_own[k]),
                "memorized_of_other": other.memorized,
                "ratio_of_other": other.ratio,
                "interval_of_other": other.interval,
                "mean_d1_of_other": other.mean_d1,
                "train_to_nearest_other": c.within[k],
            })
        };
        let pairs = |of: &[Alike]| json!({"pairs": of.len(), "distance": c.mean_distance(of), "cosine": c.mean_cosine(of)});
        let verdict = self.verdict().map(|verdict| match verdict {
            Verdict::Alike => "alike",
            Verdict::OwnSets => "own sets",
            Verdict::Far => "far",
            Verdict::Neither => "neither",
        });
        json!({
            "images": c.seeds.len(),
            "first_seed": c.seeds.first(),
            "steps": self.steps,
            "a": network(0),
            "b": network(1),
            "same_seed": pairs(&c.paired),
            "different_seeds": pairs(&c.unpaired),
            "relative_distance": c.relative(),
            "nearer_to_each_other": c.nearer_to_each_other(),
            "nearer_interval": c.nearer_interval(),
            "shared_images": c.shared,
            "same_network": c.same_network,
            "notes": self.notes(),
            "verdict": verdict,
            "said": self.said(),
        })
    }

    /// Each seed.
    pub fn seeds(&self) -> Table {
        let c = self.comparison;
        let columns = "seed distance cosine a_image a_image_name a_d1 a_d2 a_copy b_image b_image_name b_d1 b_d2 b_copy";
        let mut table = Table::new(&columns.split(' ').collect::<Vec<_>>());
        let len = c.image_len();
        for (i, (seed, pair)) in c.seeds.iter().zip(&c.paired).enumerate() {
            let mut row = vec![
                Cell::Integer(*seed as i64),
                Cell::Number(distance(pair.squared, len), 4),
                pair.cosine.map_or(Cell::Empty, |cosine| Cell::Number(cosine, 5)),
            ];
            for k in 0..2 {
                let n = &c.found[k][k][i];
                let image = n.index[0] as usize;
                let copy = Threshold::default().memorized(n);
                row.extend([Cell::Integer(image as i64), Cell::Text(c.sets[k].name(image))]);
                row.extend(n.squared.map(|squared| Cell::Number(distance(squared, len), 4)));
                row.push(Cell::Text(if copy { "yes" } else { "no" }.into()));
            }
            table.row(row);
        }
        table
    }

    /// The share of pairs that are no farther apart than a distance.
    pub fn chart(&self) -> Chart {
        let c = self.comparison;
        let len = c.image_len();
        let lines = [
            ("A's and B's sample, the same seed", &c.paired),
            ("A's and B's sample, different seeds", &c.unpaired),
            ("A's sample and its nearest training image", &c.to_own[0]),
            ("B's sample and its nearest training image", &c.to_own[1]),
        ];
        let sorted = lines.map(|(name, of)| {
            let mut all: Vec<f64> = of.iter().map(|alike| distance(alike.squared, len)).collect();
            all.sort_by(f64::total_cmp);
            (name, all)
        });
        let most = sorted.iter().filter_map(|(_, all)| all.last()).copied().fold(0.0, f64::max);
        let series = sorted.iter().map(|(name, all)| {
            let point = |i: usize| {
                let x = most * i as f64 / STEPS as f64;
                // The last one holds all, whatever the division gave.
                let below = if i == STEPS { all.len() } else { all.partition_point(|d| *d <= x) };
                Point::new(x, below as f64 / all.len() as f64)
            };
            Series::new(*name, Style::Line, (0..=STEPS).map(point).collect())
        });
        let x = "distance, root mean square over 8-bit pixels";
        let panel = Panel::new("", x, ChartScale::Linear, series.collect());
        let panel = panel.shares_of("share of pairs");
        let footer = vec![
            format!("A: {}, set {}", self.networks[0], self.sets[0]),
            format!("B: {}, set {}", self.networks[1], self.sets[1]),
        ];
        let title = format!("Pairs within a distance, of {} seeds", c.seeds.len());
        Chart { footer, ..Chart::of(&title, panel) }
    }

    /// The first seeds' samples beside the training images that they are nearest to, as a PNG.
    ///
    /// # Errors
    /// As of drawing.
    pub fn sheet(&self) -> Result<Vec<u8>> {
        let c = self.comparison;
        let (len, threshold) = (c.image_len(), Threshold::default());
        let unpaired = c.mean_distance(&c.unpaired);
        let row = |i: usize| {
            let sample = |k: usize| &c.samples[k][i * len..][..len];
            let nearest = |k: usize| c.sets[k].image(c.found[k][k][i].index[0] as usize);
            Compared {
                sample: sample(0),
                neighbours: vec![sample(1), nearest(0), nearest(1)],
                distance_ratio: distance(c.paired[i].squared, len) / unpaired,
                memorized: (0..2).any(|k| threshold.memorized(&c.found[k][k][i])),
            }
        };
        let rows = c.seeds.len().min(ROWS);
        let title = match c.relative() {
            Some(relative) => {
                format!(
                    "Samples of one seed are {relative:.2} times as far apart as those of different seeds"
                )
            }
            None => "All samples are equal".into(),
        };
        let last = c.seeds[rows - 1];
        let notes = vec![
            format!("A: {}, set {}", self.networks[0], self.sets[0]),
            format!("B: {}, set {}", self.networks[1], self.sets[1]),
            format!("sampling seeds {} to {last}, not chosen", c.seeds[0]),
        ];
        let (side, threshold) = (c.sets[0].resolution, threshold.to_string());
        let samples = (0..rows).map(row).collect();
        sheets(&[Sheet { samples, side, title, notes, threshold, of: SheetOf::Pairs }])
    }
}

fn cosine(cosine: Option<f64>) -> Cell {
    cosine.map_or(Cell::Empty, |cosine| Cell::Number(cosine, 3))
}
