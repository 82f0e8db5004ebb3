//! Results of Ridewire beside those of the peer servers.

use anyhow::Context;

use crate::process::Cpu;
use crate::server::ServerKind;
use crate::stats::median;
use crate::table::{Figure, Table};

/// The result of Ridewire and of each installed peer.
#[derive(Debug, Clone)]
pub(crate) struct PerServer<M> {
    pub(crate) ours: M,
    peers: Vec<(ServerKind, M)>,
}

impl<M> PerServer<M> {
    /// Collects the results by server.
    pub(crate) fn of(measured: Vec<(ServerKind, M)>) -> anyhow::Result<Self> {
        let (mut ours, mut peers) = (None, Vec::new());
        for (kind, measured) in measured {
            match kind {
                ServerKind::Ridewire => ours = Some(measured),
                peer => peers.push((peer, measured)),
            }
        }
        Ok(Self { ours: ours.context("ours")?, peers })
    }

    fn get(&self, kind: ServerKind) -> Option<&M> {
        match kind {
            ServerKind::Ridewire => Some(&self.ours),
            peer => self.peers.iter().find(|(kind, _)| *kind == peer).map(|(_, measured)| measured),
        }
    }
}

/// A table of Ridewire and its peers over several rounds.
#[derive(Debug)]
pub(crate) struct Comparison<'a, M> {
    pub(crate) table: Table,
    rounds: &'a [PerServer<M>],
    peers: &'a [ServerKind],
}

impl<'a, M> Comparison<'a, M> {
    pub(crate) fn new(title: &str, what: &str, rounds: &'a [PerServer<M>], peers: &'a [ServerKind]) -> Self {
        let ratios: Vec<String> = peers.iter().map(|kind| format!("vs. {}", kind.name())).collect();
        let mut header = vec![what, ServerKind::Ridewire.name()];
        header.extend(peers.iter().map(|kind| kind.name()));
        header.extend(ratios.iter().map(String::as_str));
        header.push("target");
        Self { table: Table::new(title, &header), rounds, peers }
    }

    /// Returns the median of a figure over the rounds, or NaN if it was not measured.
    pub(crate) fn median_of(&self, kind: ServerKind, figure: Figure<M>) -> f64 {
        median(self.rounds.iter().filter_map(|round| round.get(kind)).map(figure))
    }

    /// Adds a row: the median of each server, and the median of the per-round ratios.
    pub(crate) fn row(&mut self, what: &str, figure: Figure<M>, unit: impl Fn(f64) -> String, target: &str) {
        let cell = |kind: ServerKind| match self.median_of(kind, figure) {
            _ if self.rounds.iter().all(|round| round.get(kind).is_none()) => "not installed".to_owned(),
            missing if missing.is_nan() => "–".to_owned(),
            figure => unit(figure),
        };
        let ratio = |kind: ServerKind| {
            let ratios = self.rounds.iter().filter_map(|round| Some(figure(&round.ours) / figure(round.get(kind)?)));
            match median(ratios) {
                missing if missing.is_nan() => String::new(),
                ratio => format!("{ratio:.2} ×"),
            }
        };
        let peers = self.peers.iter().copied();
        let cells = std::iter::once(ServerKind::Ridewire).chain(peers.clone()).map(cell);
        let cells = std::iter::once(what.to_owned()).chain(cells).chain(peers.map(ratio));
        let cells: Vec<String> = cells.chain([target.to_owned()]).collect();
        self.table.row(cells);
    }

    /// Returns a table of the CPU usage of each server.
    pub(crate) fn cpu_table(&self, title: &str, cpu: fn(&M) -> Cpu) -> Table {
        let rows = std::iter::once(ServerKind::Ridewire).chain(self.peers.iter().copied());
        let rows = rows.map(|kind| {
            let rounds = self.rounds.iter().filter_map(|round| round.get(kind));
            (kind.name(), rounds.map(cpu).collect::<Vec<_>>())
        });
        Table::cpu_table(title, &rows.filter(|(_, rounds)| !rounds.is_empty()).collect::<Vec<_>>())
    }
}
