//! What held-out images say of a network: lines, tables, charts and the page of them.

use super::words::percent;
use crate::memorization::Inference;
use crate::memorization::membership::FALSE_POSITIVES;
use crate::report::{
    Cell, Chart, ChartScale, Page, PagePart, Panel, Point, Section, Series, Style, Table,
};
use crate::study::held::{COLLAPSED, HeldLevel, HeldReport, Losses};
use serde_json::{Value, json};

/// Losses are shown as far as this many times beyond the network's.
const ROOM: f64 = 20.0;
/// Of the horizontal axes.
const SIGMA: &str = "σ";

/// All that `emm gap --holdout` says, to be drawn and written.
pub struct HeldView<'a>(pub &'a HeldReport);

impl HeldView<'_> {
    /// As `emm gap --holdout --json` prints it.
    pub fn json(&self) -> Value {
        json!(self.0)
    }

    /// One row a noise level, all that was measured there.
    pub fn table(&self) -> Table {
        let of_sets = ["loss", "optimum_loss", "gaussian_loss", "gap", "effective_images"];
        let columns: Vec<String> = ["train", "holdout"]
            .iter()
            .flat_map(|set| of_sets.map(|name| format!("{set}_{name}")))
            .collect();
        let columns = ["sigma", "weight"]
            .into_iter()
            .chain(columns.iter().map(String::as_str))
            .chain(["auc", "auc_low", "auc_high", "true_positive_rate"]);
        let mut table = Table::new(&columns.collect::<Vec<_>>());
        for l in &self.0.held.levels {
            let mut numbers = vec![l.sigma, l.weight];
            for s in [&l.train, &l.holdout] {
                numbers.extend([s.loss, s.optimum_loss, s.gaussian_loss, s.gap]);
                numbers.push(s.effective_images);
            }
            let m = &l.membership;
            numbers.extend([m.auc, m.auc_interval[0], m.auc_interval[1], m.true_positive_rate]);
            table.row(numbers.into_iter().map(|v| Cell::Number(v, 4)).collect());
        }
        table
    }

    /// The part of it that fits a terminal.
    pub fn shown(&self) -> Table {
        let rate = format!("found at {}%", 100.0 * FALSE_POSITIVES);
        let mut table = Table::new(&[
            "sigma",
            "loss",
            "optimum's",
            "Gaussian's",
            "held-out loss",
            "optimum's",
            "Gaussian's",
            "AUC",
            &rate,
            "images",
        ]);
        for l in &self.0.held.levels {
            let losses =
                |s: &Losses| [s.loss, s.optimum_loss, s.gaussian_loss].map(|v| Cell::Number(v, 4));
            let mut row = vec![Cell::Number(l.sigma, 4)];
            row.extend(losses(&l.train));
            row.extend(losses(&l.holdout));
            row.push(Cell::Number(l.membership.auc, 3));
            row.push(Cell::Percent(l.membership.true_positive_rate, 1));
            row.push(Cell::Number(l.train.effective_images, 2));
            table.row(row);
        }
        table
    }

    /// Names and values, one a line.
    pub fn facts(&self) -> Vec<(String, String)> {
        let held = &self.0.held;
        let [train, holdout] = held.images;
        let noises = match held.noises {
            1 => "one noise".into(),
            n => format!("{n} noises"),
        };
        let mut facts = vec![(
            "images".to_string(),
            format!(
                "{train} of {} and {holdout} held-out ones of {}, {noises} each at each level, the same for both",
                self.0.data, self.0.holdout
            ),
        )];
        let mut say = |name: &str, value: String| facts.push((name.to_string(), value));
        say("membership by all levels (mean rank of an image's loss)", said(&held.all_levels));
        if let Some(best) = &held.best_level {
            let ([a, b], [c, d]) = (best.chosen_on, best.images);
            say(
                &format!("membership at σ = {:.4}", best.sigma),
                format!(
                    "{}; the best level on {a} and {b} of the images, measured on the other {c} and {d}",
                    said(&best.membership)
                ),
            );
        }
        let collapse = match held.collapse_sigma {
            Some(sigma) => format!("below σ = {sigma:.4}"),
            None => "at all of these noise levels, or not at the lowest".into(),
        };
        say(
            &format!(
                "the optimum at training images is effectively of fewer than {COLLAPSED} images"
            ),
            collapse,
        );
        facts
    }

    /// What a reader must know before believing the numbers.
    pub fn warnings(&self) -> Vec<String> {
        let r = self.0;
        let mut said = Vec::new();
        if r.foreign_data == Some(true) {
            said.push(format!(
                "the network was trained on other images or labels than {}: what is called training images here are not its own",
                r.data
            ));
        }
        if r.holdout_in_train > 0 {
            said.push(format!(
                "{} held-out images are in the training set, pixel by pixel, and were left out",
                r.holdout_in_train
            ));
        }
        let least = (1.0 / FALSE_POSITIVES).round() as usize;
        if r.held.images[1] < least {
            said.push(format!(
                "fewer than {least} held-out images: members that are found at {}% false positives are those found without any",
                100.0 * FALSE_POSITIVES
            ));
        }
        said
    }

    /// Losses, membership inference and effective images over noise levels.
    pub fn chart(&self) -> Chart {
        let levels = &self.0.held.levels;
        let points = |of: &dyn Fn(&HeldLevel) -> f64| -> Vec<Point> {
            levels.iter().map(|l| Point::new(l.sigma, of(l))).collect()
        };
        // The network's first: they say how far the axis goes.
        let network: &dyn Fn(&Losses) -> f64 = &|s| s.loss;
        let optimum: &dyn Fn(&Losses) -> f64 = &|s| s.optimum_loss;
        let gaussian: &dyn Fn(&Losses) -> f64 = &|s| s.gaussian_loss;
        let train = |name: &str, of: &dyn Fn(&Losses) -> f64| {
            Series::new(name, Style::Line, points(&|l| of(&l.train)))
        };
        let holdout = |name: &str, beside, of: &dyn Fn(&Losses) -> f64| {
            let series = Series::new(name, Style::Theirs, points(&|l| of(&l.holdout)));
            Series { beside: Some(beside), ..series }
        };
        let losses = vec![
            train("network", network),
            holdout("network, held-out", 0, network),
            train("optimum", optimum),
            holdout("optimum, held-out", 2, optimum),
            train("Gaussian", gaussian),
            holdout("Gaussian, held-out", 4, gaussian),
        ];
        let banded = levels.iter().map(|l| Point {
            interval: Some(l.membership.auc_interval),
            ..Point::new(l.sigma, l.membership.auc)
        });
        let rate = format!("members found at {}% false positives", 100.0 * FALSE_POSITIVES);
        let inference = vec![
            Series::new("AUC", Style::Line, banded.collect()),
            Series::new(rate, Style::Line, points(&|l| l.membership.true_positive_rate)),
        ];
        let effective = vec![
            Series::new("at training images", Style::Line, points(&|l| l.train.effective_images)),
            Series::new("at held-out images", Style::Line, points(&|l| l.holdout.effective_images)),
        ];
        let panel = |title: &str, series| Panel::new(title, SIGMA, ChartScale::Log, series);
        let panels = vec![
            panel("Losses", losses).log_values("weighted loss", 2, ROOM),
            panel("Membership inference by the network's loss", inference)
                .shares_of("area, and share of members"),
            panel("Images that the optimum is a mean of", effective).log_values(
                "e to the weights' entropy",
                2,
                1.3,
            ),
        ];
        let [train, holdout] = self.0.held.images;
        let footer = vec![
            format!(
                "{train} training images of {} (lines), {holdout} held-out ones of {} (dashed); the AUC's band is its 95% \
                 interval",
                self.0.data, self.0.holdout
            ),
            format!("losses more than {ROOM} times beyond the network's lie at the axis's ends"),
        ];
        let title = "Losses of training and held-out images".to_string();
        Chart { title, panels, footer }
    }

    /// All of it, for a page.
    pub fn parts(&self) -> Vec<PagePart> {
        let mut parts: Vec<PagePart> = self.warnings().into_iter().map(PagePart::Text).collect();
        parts.push(PagePart::Facts(self.facts()));
        parts.push(PagePart::Chart(self.chart()));
        parts.push(PagePart::Folded(
            "Numbers by noise level".into(),
            vec![PagePart::Table(self.shown())],
        ));
        parts
    }

    /// The page.
    pub fn page(&self) -> Page {
        let title = format!("Losses of {} beside held-out {}", self.0.data, self.0.holdout);
        let lead = vec![
            "Weighted denoising losses of the network, of the theoretical optimum of the training images (Gu et al. 2023, \
             arXiv:2310.02664) and of the Gaussian of their mean and covariance (Wang & Vastola 2024, arXiv:2412.09726). \
             Members are told by their smaller loss."
                .into(),
        ];
        let sections = vec![Section { title: "Answer".into(), parts: self.parts() }];
        Page { title, lead, sections }
    }
}

/// An area with its interval, and the rate.
fn said(found: &Inference) -> String {
    let [low, high] = found.auc_interval;
    format!(
        "AUC {:.3} (95%: {low:.3} to {high:.3}), {} of members found at {}% false positives",
        found.auc,
        percent(found.true_positive_rate),
        100.0 * FALSE_POSITIVES
    )
}
