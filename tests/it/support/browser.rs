//! What is left of a browser without its screen: cookies of each origin, redirects that are followed one by one, and forms.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::header::{HeaderMap, HeaderValue};
use url::Url;

use super::server::TestServer;

/// Most redirects that are followed.
const HOPS_MAX: usize = 12;

/// A browser of one person.
#[derive(Clone)]
pub(crate) struct Browser {
    client: reqwest::Client,
    /// By origin and name.
    cookies: BTreeMap<(String, String), String>,
}

/// What a browser was answered.
#[derive(Debug)]
pub(crate) struct Page {
    /// Where it is.
    pub url: Url,
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Page {
    /// Where it leads, if it is a redirect.
    pub(crate) fn location(&self) -> Result<Url> {
        let location = self.headers.get("location").with_context(|| format!("no redirect: {}", self.text))?;
        Ok(self.url.join(location.to_str()?)?)
    }

    /// Where a page leads by itself.
    pub(crate) fn refresh(&self) -> Result<Url> {
        let (_, rest) =
            self.text.split_once("content=\"0; url=").with_context(|| format!("it stays: {}", self.text))?;
        let (url, _) = rest.split_once('"').context("an attribute ends")?;
        Ok(Url::parse(&url.replace("&amp;", "&"))?)
    }

    /// The token in its forms.
    pub(crate) fn token(&self) -> Result<&str> {
        let (_, rest) = self.text.split_once("name=\"token\" value=\"").with_context(|| self.text.clone())?;
        Ok(rest.split_once('"').context("an attribute ends")?.0)
    }

    /// All that tells two answers apart, but for the id and the time of the answer.
    pub(crate) fn all(&self) -> (u16, String, HeaderMap) {
        let mut headers = self.headers.clone();
        for each_its_own in ["x-request-id", "date"] {
            headers.remove(each_its_own);
        }
        (self.status, self.text.clone(), headers)
    }
}

impl Browser {
    /// One without any cookie.
    #[expect(clippy::disallowed_methods, reason = "a test's browser is not bound by our egress rules")]
    pub(crate) fn new() -> Result<Self> {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { client, cookies: BTreeMap::new() })
    }

    /// Opens an address and stays there.
    pub(crate) async fn get(&mut self, url: &Url) -> Result<Page> {
        let request = self.client.get(url.clone());
        self.send(url, request).await
    }

    /// Opens an address and goes wherever it leads.
    pub(crate) async fn open(&mut self, url: &Url) -> Result<Page> {
        let mut page = self.get(url).await?;
        for _ in 0..HOPS_MAX {
            if !page.headers.contains_key("location") {
                return Ok(page);
            }
            page = self.get(&page.location()?).await?;
        }
        bail!("too many redirects, the last to {}", page.url)
    }

    /// Sends a form as a page of `origin` does.
    pub(crate) async fn post(&mut self, url: &Url, origin: Option<&str>, form: &[(&str, &str)]) -> Result<Page> {
        let mut request = self.client.post(url.clone()).form(form);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        self.send(url, request).await
    }

    /// Presses a button of `page` that leads to `path`.
    pub(crate) async fn press(&mut self, page: &Page, path: &str) -> Result<Page> {
        ensure!(page.text.contains(&format!("action=\"{path}\"")), "no such button: {}", page.text);
        let origin = page.url.origin().ascii_serialization();
        self.post(&page.url.join(path)?, Some(&origin), &[("token", page.token()?)]).await
    }

    /// Signs in with what `idp` gives for a code; returns where the sign-in led.
    pub(crate) async fn sign_in(
        &mut self,
        server: &TestServer,
        path: &str,
        who: &str,
        groups: &[&str],
    ) -> Result<Page> {
        let back = self.begin_sign_in(server, path, who, groups).await?;
        let landed = self.get(&back).await?;
        ensure!(landed.status == 303, "{}", landed.text);
        self.get(&landed.location()?).await
    }

    /// The same up to the address with which the provider sends the browser back.
    pub(crate) async fn begin_sign_in(
        &mut self,
        server: &TestServer,
        path: &str,
        who: &str,
        groups: &[&str],
    ) -> Result<Url> {
        let sent = self.get(&Url::parse(&server.url(path))?).await?.location()?;
        let mut claims = server.idp.claims(who, groups, "login");
        claims["nonce"] = query(&sent, "nonce")?.into();
        server.idp.give_claims(&claims)?;
        let state = query(&sent, "state")?;
        Ok(Url::parse(&server.url(&format!("/sign-in/corp/callback?code=CANARY-code&state={state}")))?)
    }

    /// The names of the cookies of an origin.
    pub(crate) fn cookies(&self, url: &Url) -> Vec<&str> {
        let origin = url.origin().ascii_serialization();
        self.cookies.keys().filter(|(of, _)| *of == origin).map(|(_, name)| name.as_str()).collect()
    }

    /// Gives what it holds under one name another one.
    pub(crate) fn rename(&mut self, url: &Url, from: &str, to: &str) -> Result<()> {
        let origin = url.origin().ascii_serialization();
        let value = self.cookies.get(&(origin.clone(), from.to_owned())).context("no such cookie")?.clone();
        self.cookies.insert((origin, to.to_owned()), value);
        Ok(())
    }

    async fn send(&mut self, url: &Url, request: reqwest::RequestBuilder) -> Result<Page> {
        let origin = url.origin().ascii_serialization();
        let ours = self.cookies.iter().filter(|((of, _), _)| *of == origin);
        let pairs: Vec<String> = ours.map(|((_, name), value)| format!("{name}={value}")).collect();
        let mut request = request.header("accept", "text/html");
        if !pairs.is_empty() {
            request = request.header("cookie", pairs.join("; "));
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        for set in headers.get_all("set-cookie") {
            self.keep(&origin, set)?;
        }
        Ok(Page { url: url.clone(), status, headers, text: response.text().await? })
    }

    fn keep(&mut self, origin: &str, set: &HeaderValue) -> Result<()> {
        let text = set.to_str()?;
        let (name, value) = text.split(';').next().and_then(|pair| pair.split_once('=')).context("a cookie")?;
        let key = (origin.to_owned(), name.trim().to_owned());
        if value.is_empty() {
            self.cookies.remove(&key);
        } else {
            self.cookies.insert(key, value.to_owned());
        }
        Ok(())
    }
}

/// A field of an address's query.
pub(crate) fn query(url: &Url, name: &str) -> Result<String> {
    let value = url.query_pairs().find(|(named, _)| named == name).map(|(_, value)| value.into_owned());
    value.with_context(|| format!("no `{name}` in {url}"))
}
