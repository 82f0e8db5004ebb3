//! What was measured of ours and of the peers that are servers, side by side.

use anyhow::Context;

use crate::process::Cpu;
use crate::server::Kind;
use crate::stats::median;
use crate::table::{Figure, Table};

/// The same of ours and of each peer that is there.
#[derive(Debug, Clone)]
pub(crate) struct Compared<M> {
    pub(crate) ours: M,
    pub(crate) nchan: Option<M>,
    pub(crate) express: Option<M>,
}

impl<M> Compared<M> {
    /// From what was measured of each.
    pub(crate) fn of(measured: Vec<(Kind, M)>) -> anyhow::Result<Self> {
        let (mut ours, mut nchan, mut express) = (None, None, None);
        for (kind, measured) in measured {
            let place = match kind {
                Kind::Ridewire => &mut ours,
                Kind::Nchan => &mut nchan,
                Kind::Express => &mut express,
            };
            *place = Some(measured);
        }
        Ok(Self { ours: ours.context("ours")?, nchan, express })
    }

    fn get(&self, kind: Kind) -> Option<&M> {
        match kind {
            Kind::Ridewire => Some(&self.ours),
            Kind::Nchan => self.nchan.as_ref(),
            Kind::Express => self.express.as_ref(),
        }
    }
}

/// A table of ours and some peers, over rounds.
#[derive(Debug)]
pub(crate) struct Comparison<'a, M> {
    pub(crate) table: Table,
    rounds: &'a [Compared<M>],
    peers: &'a [Kind],
}

impl<'a, M> Comparison<'a, M> {
    pub(crate) fn new(title: &str, what: &str, rounds: &'a [Compared<M>], peers: &'a [Kind]) -> Self {
        let ratios: Vec<String> = peers.iter().map(|kind| format!("to {}", kind.name())).collect();
        let mut header = vec![what, Kind::Ridewire.name()];
        header.extend(peers.iter().map(|kind| kind.name()));
        header.extend(ratios.iter().map(String::as_str));
        header.push("wanted");
        Self { table: Table::new(title, &header), rounds, peers }
    }

    /// The median of a figure over the rounds; no number where it was not measured.
    pub(crate) fn middle(&self, kind: Kind, figure: Figure<M>) -> f64 {
        median(self.rounds.iter().filter_map(|round| round.get(kind)).map(figure))
    }

    /// A row of ours and the peers': medians over the rounds, the ratios of the rounds' own.
    pub(crate) fn row(&mut self, what: &str, figure: Figure<M>, unit: impl Fn(f64) -> String, wanted: &str) {
        let cell = |kind: Kind| match self.middle(kind, figure) {
            _ if self.rounds.iter().all(|round| round.get(kind).is_none()) => "not installed".to_owned(),
            nothing if nothing.is_nan() => "–".to_owned(),
            figure => unit(figure),
        };
        let ratio = |kind: Kind| {
            let ratios = self.rounds.iter().filter_map(|round| Some(figure(&round.ours) / figure(round.get(kind)?)));
            match median(ratios) {
                nothing if nothing.is_nan() => String::new(),
                ratio => format!("{ratio:.2} ×"),
            }
        };
        let peers = self.peers.iter().copied();
        let cells = std::iter::once(Kind::Ridewire).chain(peers.clone()).map(cell);
        let cells = std::iter::once(what.to_owned()).chain(cells).chain(peers.map(ratio));
        let cells: Vec<String> = cells.chain([wanted.to_owned()]).collect();
        self.table.row(cells);
    }

    /// How many cores were busy with each.
    pub(crate) fn busy(&self, title: &str, cpu: fn(&M) -> Cpu) -> Table {
        let rows = std::iter::once(Kind::Ridewire).chain(self.peers.iter().copied());
        let rows = rows.map(|kind| {
            let rounds = self.rounds.iter().filter_map(|round| round.get(kind));
            (kind.name(), rounds.map(cpu).collect::<Vec<_>>())
        });
        Table::busy(title, &rows.filter(|(_, rounds)| !rounds.is_empty()).collect::<Vec<_>>())
    }
}
