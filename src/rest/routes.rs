//! Which path leads where: built from the operations' declarations, in their order.

use std::collections::{BTreeSet, HashMap};

use hyper::Method;

use super::owner_of;
use crate::model::account::AccountId;
use crate::net::bind::{self, Bound, Grant, Handler, Table};
use crate::wire::ops::{Decl, Operation};
use crate::wire::proto;

/// One operation at its path.
pub(super) struct Route {
    segments: Vec<Segment>,
    pub(super) bound: Box<dyn Bound>,
}

enum Segment {
    Fixed(&'static str),
    Variable,
}

/// All routes, and which of them have which path without a variable in it.
pub(super) struct Routes {
    all: Vec<Route>,
    written_out: HashMap<&'static str, Vec<usize>>,
}

/// What there is at a path.
pub(super) enum Found<'r> {
    /// An operation, and what its variable segments are.
    Route(&'r Route, Vec<String>),
    /// The path is there; the question was which methods it has.
    Options(String),
    /// The path is there, with other methods.
    OtherMethods(String),
    /// Nothing.
    Nothing,
}

impl Routes {
    pub(super) fn new() -> Self {
        let mut routes = Self { all: Vec::new(), written_out: HashMap::new() };
        bind::operations(&mut routes);
        routes
    }

    /// Finds what there is. A HEAD has to be asked for as the GET it stands for.
    pub(super) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        // A path that is written out is another than the one it would also be with a variable in it.
        let matching: Vec<_> = match self.written_out.get(path) {
            Some(places) => places.iter().map(|place| (&self.all[*place], Vec::new())).collect(),
            None => self.all.iter().filter_map(|route| Some((route, route.matches(path)?))).collect(),
        };
        let fewest = matching.iter().map(|(_, variables)| variables.len()).min();
        let mut allowed = BTreeSet::new();
        for (route, variables) in matching.into_iter().filter(|(_, variables)| Some(variables.len()) == fewest) {
            if route.decl().method.as_str() == method.as_str() {
                return Found::Route(route, variables);
            }
            allowed.insert(route.decl().method.as_str());
        }
        if allowed.is_empty() {
            return Found::Nothing;
        }
        if allowed.contains("GET") {
            allowed.insert("HEAD");
        }
        allowed.insert("OPTIONS");
        let allow = allowed.into_iter().collect::<Vec<_>>().join(", ");
        if method == Method::OPTIONS { Found::Options(allow) } else { Found::OtherMethods(allow) }
    }
}

impl Table for Routes {
    fn row<O: proto::Method<Access: Grant>, H: Handler<O>>(&mut self, handler: H) {
        self.row_of_rest::<O, H>(handler);
    }

    fn row_of_rest<O: Operation<Access: Grant>, H: Handler<O>>(&mut self, handler: H) {
        let segments = O::DECL.path[1..]
            .split('/')
            .map(|segment| if segment.starts_with('{') { Segment::Variable } else { Segment::Fixed(segment) });
        if !O::DECL.path.contains('{') {
            self.written_out.entry(O::DECL.path).or_default().push(self.all.len());
        }
        self.all.push(Route { segments: segments.collect(), bound: bind::bind::<O, H>(handler) });
    }
}

impl Route {
    pub(super) fn decl(&self) -> &'static Decl {
        self.bound.decl()
    }

    /// The account that a request to this path is about.
    pub(super) fn owner(&self, variables: &[String]) -> Option<AccountId> {
        self.decl().path.starts_with("/v1/accounts/").then(|| owner_of(variables)).flatten()
    }

    /// What the variable segments are, if this is the path.
    fn matches(&self, path: &str) -> Option<Vec<String>> {
        let mut variables = Vec::new();
        let mut given = path.strip_prefix('/')?.split('/');
        for segment in &self.segments {
            match (segment, given.next()?) {
                (Segment::Fixed(fixed), part) if *fixed == part => {}
                (Segment::Variable, part) if !part.is_empty() => {
                    // What isn't UTF-8 is no id and no role either way.
                    variables.push(percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned());
                }
                _ => return None,
            }
        }
        given.next().is_none().then_some(variables)
    }
}

/// Every route, for tests and documents: its declaration.
pub fn table() -> Vec<&'static Decl> {
    Routes::new().all.iter().map(Route::decl).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ops;

    #[test]
    fn every_declared_operation_is_bound_once_and_in_order() {
        let bound: Vec<_> = table().iter().map(|decl| decl.name).collect();
        let declared: Vec<_> = ops::ALL.iter().map(|decl| decl.name).collect();
        assert_eq!(bound, declared);
    }

    #[test]
    fn paths_match_whole() {
        let routes = Routes::new();
        let id = "0194e2f0-7d3a-7c1e-9b52-2f6d0a4c8e11";
        assert!(matches!(routes.find(&Method::GET, &format!("/v1/accounts/{id}")), Found::Route(_, v) if v == [id]));
        for nothing in
            ["", "/", "/v1", "/v1/health/", "//v1/health", "/v1/accounts/", "/v1/accounts/a/b", "/V1/health", "*"]
        {
            assert!(matches!(routes.find(&Method::GET, nothing), Found::Nothing), "{nothing}");
        }
        assert!(
            matches!(routes.find(&Method::DELETE, "/v1/accounts"), Found::OtherMethods(allow) if allow == "GET, HEAD, OPTIONS, POST")
        );
        assert!(
            matches!(routes.find(&Method::OPTIONS, "/v1/auth/login"), Found::Options(allow) if allow == "OPTIONS, POST")
        );
    }
}
