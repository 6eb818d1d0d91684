//! Which packages: from a request and all there is to a set that is complete and free of conflicts.
//!
//! Every name and architecture has one candidate, its highest version over all suites. What is asked
//! for is taken first; then dependencies are satisfied breadth first: by what is taken already, else
//! by the first alternative that fits, else by its best provider. Nothing is ever taken back, so the
//! result is the same for the same input and a failure has one chain of reasons to show.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Priority;
use super::index::{Index, MultiArch, Package};
use super::relation::{self, Relation};
use super::version;

/// What a system starts out with, by debootstrap's names.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Priority required, and apt.
    #[default]
    Minbase,
    /// Minbase and build-essential.
    Buildd,
    /// Priorities required and important, and apt: debootstrap's default.
    Important,
    /// Priorities required, important and standard, and apt.
    Standard,
}

impl Variant {
    fn priority(self) -> Priority {
        match self {
            Self::Minbase | Self::Buildd => Priority::Required,
            Self::Important => Priority::Important,
            Self::Standard => Priority::Standard,
        }
    }

    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Minbase | Self::Important | Self::Standard => &["apt"],
            Self::Buildd => &["apt", "build-essential"],
        }
    }
}

impl std::str::FromStr for Variant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "minbase" => Ok(Self::Minbase),
            "buildd" => Ok(Self::Buildd),
            "important" | "-" => Ok(Self::Important),
            "standard" => Ok(Self::Standard),
            _ => Err(format!("no variant `{text}`: write minbase, buildd, important or standard")),
        }
    }
}

/// What shall be installed.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// None takes nothing but `include` and what it needs, not even essential packages.
    pub variant: Option<Variant>,
    pub architecture: &'a str,
    pub foreign_architectures: &'a [String],
    /// Names, with `:arch` for a foreign architecture or `/` never.
    pub include: &'a [String],
    /// Never taken, whatever depends on them.
    pub exclude: &'a [String],
    pub recommends: bool,
}

/// The place of a package: which index, which record in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Choice {
    pub index: usize,
    pub record: usize,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ResolveError {
    #[error("there is no package {name}{}", did_you_mean(.similar))]
    Unknown { name: String, similar: Option<String> },
    #[error("{package} needs {group}, which {why}{}", Chain(.chain))]
    Unsatisfied { package: String, group: String, why: String, chain: Vec<String> },
    #[error("{left} and {right} cannot be installed together: {left} {relation}{}", Chain(.chain))]
    Conflict { left: String, right: String, relation: String, chain: Vec<String> },
    #[error("package {name} has an unusable entry in the index: {field}")]
    Damaged { name: String, field: &'static str },
}

impl ResolveError {
    /// A stable name for programs and for the docs.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "packages.unknown",
            Self::Unsatisfied { .. } => "packages.unsatisfied",
            Self::Conflict { .. } => "packages.conflict",
            Self::Damaged { .. } => "packages.damaged",
        }
    }
}

fn did_you_mean(similar: &Option<String>) -> String {
    similar.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// Why a package is there, from the request on.
struct Chain<'a>(&'a [String]);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|reason| write!(out, "\n  because {reason}"))
    }
}

/// The packages of a set in the order they were taken, and which of them were asked for.
#[derive(Clone, Debug, Default)]
pub struct Resolution {
    pub choices: Vec<Choice>,
    pub requested: BTreeSet<String>,
}

/// Resolves against `indices`, which may hold several suites, components and architectures.
pub fn resolve(indices: &[&Index], wanted: &Wanted<'_>) -> Result<Resolution, ResolveError> {
    let universe = Universe::new(indices, wanted);
    let mut closure = Closure::new(&universe, wanted);
    closure.request()?;
    closure.satisfy_all()?;
    Ok(Resolution {
        choices: closure.taken.iter().map(|id| universe.nodes[*id].choice).collect(),
        requested: closure.requested,
    })
}

/// One candidate.
struct Node<'a> {
    package: Package<'a>,
    choice: Choice,
    /// The machine architecture; `all` counts as the native one.
    architecture: &'a str,
}

struct Universe<'a> {
    nodes: Vec<Node<'a>>,
    /// Candidates of a name, native architecture first.
    by_name: HashMap<&'a str, Vec<usize>>,
    /// Who provides a name, and in which version.
    providers: HashMap<&'a str, Vec<(usize, Option<&'a str>)>>,
}

impl<'a> Universe<'a> {
    fn new(indices: &[&'a Index], wanted: &Wanted<'a>) -> Self {
        let total = indices.iter().map(|index| index.len()).sum();
        let mut best: HashMap<(&'a str, bool, &'a str), usize> = HashMap::with_capacity(total);
        let mut nodes: Vec<Node<'a>> = Vec::with_capacity(total);
        for (index, packages) in indices.iter().enumerate() {
            for (record, package) in packages.packages().enumerate() {
                let native = matches!(package.architecture(), "all") || package.architecture() == wanted.architecture;
                if !native && !wanted.foreign_architectures.iter().any(|foreign| foreign == package.architecture()) {
                    continue;
                }
                let architecture = if native { wanted.architecture } else { package.architecture() };
                let node = Node { package, choice: Choice { index, record }, architecture };
                match best.entry((package.name(), native, architecture)) {
                    std::collections::hash_map::Entry::Vacant(place) => {
                        place.insert(nodes.len());
                        nodes.push(node);
                    }
                    std::collections::hash_map::Entry::Occupied(place) => {
                        let known = &mut nodes[*place.get()];
                        // On equal versions the earlier index stays.
                        if version::compare(package.version(), known.package.version()).is_gt() {
                            *known = node;
                        }
                    }
                }
            }
        }
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::with_capacity(nodes.len());
        let mut providers: HashMap<&str, Vec<(usize, Option<&str>)>> = HashMap::new();
        for (id, node) in nodes.iter().enumerate() {
            by_name.entry(node.package.name()).or_default().push(id);
            for provided in relation::parse(node.package.provides(), wanted.architecture).flatten() {
                providers.entry(provided.name).or_default().push((id, provided.version.map(|(_, version)| version)));
            }
        }
        for ids in by_name.values_mut() {
            ids.sort_by_key(|id| (nodes[*id].architecture != wanted.architecture, nodes[*id].architecture));
        }
        for list in providers.values_mut() {
            list.sort_by_key(|(id, _)| {
                let package = &nodes[*id].package;
                (
                    nodes[*id].architecture != wanted.architecture,
                    !package.essential(),
                    package.priority(),
                    package.name(),
                )
            });
        }
        Self { nodes, by_name, providers }
    }

    fn shown(&self, id: usize, native: &str) -> String {
        let node = &self.nodes[id];
        let architecture = if node.architecture == native { String::new() } else { format!(":{}", node.architecture) };
        format!("{}{architecture} {}", node.package.name(), node.package.version())
    }

    /// Whether a package of the depending architecture may use this one (multi-arch, "dependency" rules).
    fn reachable(&self, id: usize, from: &str, qualifier: Option<&str>) -> bool {
        let node = &self.nodes[id];
        match qualifier {
            Some("any") => node.architecture == from || node.package.multi_arch() == MultiArch::Allowed,
            Some("native") | None => node.architecture == from || node.package.multi_arch() == MultiArch::Foreign,
            Some(architecture) => node.architecture == architecture,
        }
    }

    /// Everything that satisfies one alternative: real packages first, then providers, best first.
    fn satisfying<'s>(&'s self, relation: &'s Relation<'_>, from: &'s str) -> impl Iterator<Item = usize> + 's {
        let real = self.by_name.get(relation.name).into_iter().flatten().copied();
        let real = real.filter(move |id| relation.admits(Some(self.nodes[*id].package.version())));
        let virtual_ones = self.providers.get(relation.name).into_iter().flatten();
        let virtual_ones = virtual_ones.filter(move |(_, version)| relation.admits(*version)).map(|(id, _)| *id);
        real.chain(virtual_ones).filter(move |id| self.reachable(*id, from, relation.qualifier))
    }
}

struct Closure<'u, 'a> {
    universe: &'u Universe<'a>,
    wanted: &'u Wanted<'a>,
    /// In the order of taking.
    taken: Vec<usize>,
    is_taken: Vec<bool>,
    /// Who needed it and by which relation; None was asked for.
    reason: BTreeMap<usize, Option<(usize, String)>>,
    todo: VecDeque<usize>,
    requested: BTreeSet<String>,
    excluded: BTreeSet<&'a str>,
}

impl<'u, 'a> Closure<'u, 'a> {
    fn new(universe: &'u Universe<'a>, wanted: &'u Wanted<'a>) -> Self {
        Self {
            universe,
            wanted,
            taken: Vec::new(),
            is_taken: vec![false; universe.nodes.len()],
            reason: BTreeMap::new(),
            todo: VecDeque::new(),
            requested: BTreeSet::new(),
            excluded: wanted.exclude.iter().map(String::as_str).collect(),
        }
    }

    /// What is asked for by variant and by name.
    fn request(&mut self) -> Result<(), ResolveError> {
        for name in self.wanted.include {
            let id = self.find(name)?;
            self.requested.insert(name.clone());
            self.take(id, None)?;
        }
        let Some(variant) = self.wanted.variant else { return Ok(()) };
        let mut base: Vec<usize> = (0..self.universe.nodes.len())
            .filter(|id| {
                let node = &self.universe.nodes[*id];
                node.architecture == self.wanted.architecture
                    && (node.package.essential() || node.package.priority() <= variant.priority())
                    && !self.excluded.contains(node.package.name())
            })
            .collect();
        base.sort_by_key(|id| self.universe.nodes[*id].package.name());
        for id in base {
            // Two packages of the base may exclude each other (an old default and its successor): the first stays.
            if self.conflict_of(id).is_none() {
                self.take(id, None)?;
            }
        }
        for name in variant.names() {
            if !self.excluded.contains(name) {
                let id = self.find(name)?;
                self.take(id, None)?;
            }
        }
        Ok(())
    }

    /// A package by name, `name:arch`, or the only provider of a virtual name.
    fn find(&self, text: &str) -> Result<usize, ResolveError> {
        let (name, architecture) = text.split_once(':').unwrap_or((text, self.wanted.architecture));
        let relation = Relation { name, qualifier: None, version: None };
        let mut found = self.universe.satisfying(&relation, architecture);
        found.next().ok_or_else(|| {
            let names = self.universe.by_name.keys().filter(|known| known.len().abs_diff(name.len()) < 3);
            let similar = names
                .map(|known| (strsim::damerau_levenshtein(known, name), *known))
                .min()
                .filter(|(distance, _)| *distance < 3);
            ResolveError::Unknown { name: text.to_owned(), similar: similar.map(|(_, name)| name.to_owned()) }
        })
    }

    fn take(&mut self, id: usize, reason: Option<(usize, String)>) -> Result<(), ResolveError> {
        if self.is_taken[id] {
            return Ok(());
        }
        if let Some((other, relation)) = self.conflict_of(id) {
            let (left, right) = (self.shown(id), self.shown(other));
            let mut chain = match &reason {
                Some((parent, group)) => [vec![self.because(id, *parent, group)], self.chain(*parent)].concat(),
                None => self.chain(id),
            };
            chain.extend(self.chain(other));
            return Err(ResolveError::Conflict { left, right, relation, chain });
        }
        self.is_taken[id] = true;
        self.taken.push(id);
        self.reason.insert(id, reason);
        self.todo.push_back(id);
        Ok(())
    }

    fn satisfy_all(&mut self) -> Result<(), ResolveError> {
        while let Some(id) = self.todo.pop_front() {
            let node = &self.universe.nodes[id];
            let architecture = node.architecture;
            for field in [node.package.pre_depends(), node.package.depends()] {
                for group in relation::parse(field, architecture) {
                    self.satisfy(id, &group, architecture)?;
                }
            }
            if self.wanted.recommends {
                for group in relation::parse(node.package.recommends(), architecture) {
                    // A recommendation that cannot be followed is none.
                    let _ = self.satisfy(id, &group, architecture);
                }
            }
        }
        Ok(())
    }

    fn satisfy(&mut self, id: usize, group: &[Relation<'_>], architecture: &str) -> Result<(), ResolveError> {
        let universe = self.universe;
        let options = || group.iter().flat_map(|relation| universe.satisfying(relation, architecture));
        if options().any(|option| self.is_taken[option]) {
            return Ok(());
        }
        let allowed = |option: &usize| !self.excluded.contains(universe.nodes[*option].package.name());
        // What is excluded counts as being there: leaving it out was the caller's decision.
        if options().next().is_some() && options().all(|option| !allowed(&option)) {
            return Ok(());
        }
        let shown = group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        let free = options().filter(allowed).find(|option| self.conflict_of(*option).is_none());
        match free.or_else(|| options().find(allowed)) {
            Some(option) => self.take(option, Some((id, shown))),
            None => {
                let known = group.iter().find_map(|relation| universe.by_name.get(relation.name)?.first());
                let why = match known {
                    Some(found) => format!("only {} is there for", universe.shown(*found, self.wanted.architecture)),
                    None => "does not exist".to_owned(),
                };
                Err(ResolveError::Unsatisfied { package: self.shown(id), group: shown, why, chain: self.chain(id) })
            }
        }
    }

    /// A taken package that cannot live beside `id`, and the relation that says so.
    fn conflict_of(&self, id: usize) -> Option<(usize, String)> {
        let universe = self.universe;
        let mine = &universe.nodes[id];
        let fields =
            |node: &Node<'a>| [("conflicts with", node.package.conflicts()), ("breaks", node.package.breaks())];
        for (verb, field) in fields(mine) {
            for relation in relation::parse(field, mine.architecture).flatten() {
                let hit = self.hit_by(&relation, id).find(|other| self.is_taken[*other] && *other != id);
                if let Some(other) = hit {
                    return Some((other, format!("{verb} {relation}")));
                }
            }
        }
        for other in self.taken.iter().copied().filter(|other| *other != id) {
            for (verb, field) in fields(&universe.nodes[other]) {
                if !mentions(field, mine) {
                    continue;
                }
                for relation in relation::parse(field, universe.nodes[other].architecture).flatten() {
                    if self.hit_by(&relation, other).any(|hit| hit == id) {
                        return Some((other, format!("is excluded, as that one {verb} {relation}")));
                    }
                }
            }
        }
        None
    }

    /// Packages a negative relation of `by` speaks of: of any architecture, also as providers, never itself.
    fn hit_by<'s>(&'s self, relation: &'s Relation<'_>, by: usize) -> impl Iterator<Item = usize> + 's {
        let universe = self.universe;
        let real = universe.by_name.get(relation.name).into_iter().flatten().copied();
        let real = real.filter(move |id| relation.admits(Some(universe.nodes[*id].package.version())));
        let virtual_ones = universe.providers.get(relation.name).into_iter().flatten();
        let virtual_ones = virtual_ones.filter(move |(_, version)| relation.admits(*version)).map(|(id, _)| *id);
        // The same package of another architecture is no stranger (it is co-installable or refused elsewhere).
        real.chain(virtual_ones)
            .filter(move |id| universe.nodes[*id].package.name() != universe.nodes[by].package.name())
    }

    fn shown(&self, id: usize) -> String {
        self.universe.shown(id, self.wanted.architecture)
    }

    fn because(&self, id: usize, parent: usize, group: &str) -> String {
        format!("{} needs {group} ({})", self.shown(parent), self.shown(id))
    }

    /// The reasons for a taken package, up to the request.
    fn chain(&self, id: usize) -> Vec<String> {
        let mut chain = Vec::new();
        let mut at = id;
        while let Some(Some((parent, group))) = self.reason.get(&at) {
            chain.push(self.because(at, *parent, group));
            at = *parent;
        }
        let name = self.universe.nodes[at].package.name();
        let how = if self.requested.contains(name) { "was asked for" } else { "belongs to the variant" };
        chain.push(format!("{} {how}", self.shown(at)));
        chain
    }
}

/// A quick look before a field is parsed: whether it can speak of the package at all.
fn mentions(field: &str, node: &Node<'_>) -> bool {
    let provided = || {
        relation::parse(node.package.provides(), node.architecture)
            .flatten()
            .any(|relation| field.contains(relation.name))
    };
    !field.is_empty() && (field.contains(node.package.name()) || (!node.package.provides().is_empty() && provided()))
}

#[cfg(test)]
mod tests;
