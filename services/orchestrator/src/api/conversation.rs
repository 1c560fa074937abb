//! `weft.orchestrator.v1.ConversationService`.
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_core::{Clock, new_id};
use weft_product::Products;
use weft_proto::orchestrator::v1::conversation_service_server::ConversationService;
use weft_proto::orchestrator::v1::{
    CreateSessionRequest, DeleteSessionRequest, DeleteSessionResponse, GetSessionRequest, ListMessagesRequest,
    ListMessagesResponse, ListSessionsRequest, ListSessionsResponse, Session, SessionMessage, UpdateSessionRequest,
};

use crate::api::account::Account;
use crate::api::page::{Pages, Sizes, no_page};
use crate::conversations::{Conversations, Kept, Page};
use crate::domain::conversation as rules;
use crate::error::Error;
use crate::store::conversation::{MessageRow, SessionChange, SessionPlace, SessionRow};

/// Sessions of a page.
const SESSIONS: Sizes = Sizes { default: 20, most: 100 };
/// Messages of a page.
const MESSAGES: Sizes = Sizes { default: 50, most: 200 };

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct ConversationApi {
    conversations: Conversations,
    /// Which product keeps which.
    products: Arc<Products>,
    clock: Clock,
    pages: Pages,
}

impl ConversationApi {
    /// A service of these parts.
    pub fn new(conversations: Conversations, products: Arc<Products>, clock: Clock, pages: Pages) -> ConversationApi {
        ConversationApi { conversations, products, clock, pages }
    }

    /// The account that calls, and what its product keeps.
    fn admit(&self, caller: &Caller) -> Result<(Account, Kept), Error> {
        let account = Account::of(caller)?;
        let kept = self.conversations.of(account.product(&self.products)?)?;
        Ok((account, kept))
    }

    async fn create(&self, caller: &Caller, request: CreateSessionRequest) -> Result<Session, Error> {
        let (account, kept) = self.admit(caller)?;
        let (title, now_ms) = (rules::title(&request.title)?, self.clock.now_ms());
        let metadata = request.metadata.map_or_else(|| Ok(String::new()), rules::metadata)?;
        let (id, account_id) = (new_id(), account.id);
        let (created_at, updated_at) = (now_ms, now_ms);
        let row = SessionRow { id, account_id, title, metadata, message_count: 0, created_at, updated_at };
        kept.create(&row).await?;
        Ok(shown(&kept, row))
    }

    async fn list(&self, caller: &Caller, request: ListSessionsRequest) -> Result<ListSessionsResponse, Error> {
        let (account, kept) = self.admit(caller)?;
        let scope = ["sessions", &account.product, &account.id];
        let (size, place) = (SESSIONS.size(request.page_size)?, self.pages.read(&scope, &request.page_token)?);
        let place = if place.is_empty() { None } else { Some(session_place(&place)?) };
        let mut rows = kept.list(&account.id, place.as_ref(), size.saturating_add(1)).await?;
        let more = rows.len() > size;
        rows.truncate(size);
        let place = |row: &SessionRow| format!("{}.{}", row.updated_at, row.id);
        let next = rows.last().filter(|_| more).map(|row| self.pages.sign(&scope, &place(row)));
        let sessions = rows.into_iter().map(|row| shown(&kept, row)).collect();
        Ok(ListSessionsResponse { sessions, next_page_token: next.unwrap_or_default() })
    }

    async fn update(&self, caller: &Caller, request: UpdateSessionRequest) -> Result<Session, Error> {
        let (account, kept) = self.admit(caller)?;
        let title = request.title.as_deref().map(rules::title).transpose()?;
        let metadata = request.metadata.map(rules::metadata).transpose()?;
        let row = kept.update(&account.id, &request.session_id, &SessionChange { title, metadata }).await?;
        Ok(shown(&kept, row))
    }

    async fn messages(&self, caller: &Caller, request: ListMessagesRequest) -> Result<ListMessagesResponse, Error> {
        let (account, kept) = self.admit(caller)?;
        let scope = ["messages", &account.product, &account.id, &request.session_id];
        let (size, place) = (MESSAGES.size(request.page_size)?, self.pages.read(&scope, &request.page_token)?);
        let after = if place.is_empty() { 0 } else { place.parse().map_err(|_| no_page())? };
        let Page { messages, more } = kept.messages(&account.id, &request.session_id, after, size).await?;
        let next = messages.last().filter(|_| more).map(|row| self.pages.sign(&scope, &row.position.to_string()));
        let messages = messages.into_iter().map(told).collect();
        Ok(ListMessagesResponse { messages, next_page_token: next.unwrap_or_default() })
    }
}

fn session_place(place: &str) -> Result<SessionPlace, Error> {
    let read = || {
        let (updated_at, id) = place.split_once('.')?;
        Some(SessionPlace { updated_at: updated_at.parse().ok()?, id: id.to_owned() })
    };
    read().ok_or_else(no_page)
}

fn shown(kept: &Kept, row: SessionRow) -> Session {
    let (metadata, expires_at) = (rules::metadata_told(&row.metadata), kept.expires_at(&row));
    let SessionRow { id, title, message_count, created_at, updated_at, .. } = row;
    Session { id, title, metadata, message_count, created_at, updated_at, expires_at }
}

fn told(row: MessageRow) -> SessionMessage {
    let MessageRow { id, role, content, agent, model, created_at, incomplete, .. } = row;
    SessionMessage { id, role, content, agent, model, created_at, incomplete }
}

#[tonic::async_trait]
impl ConversationService for ConversationApi {
    async fn create_session(&self, request: Request<CreateSessionRequest>) -> Result<Response<Session>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.create(&caller, request.into_inner()).await?))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.list(&caller, request.into_inner()).await?))
    }

    async fn get_session(&self, request: Request<GetSessionRequest>) -> Result<Response<Session>, Status> {
        let (account, kept) = self.admit(&Caller::of(&request)?)?;
        let row = kept.get(&account.id, &request.into_inner().session_id).await?;
        Ok(Response::new(shown(&kept, row)))
    }

    async fn update_session(&self, request: Request<UpdateSessionRequest>) -> Result<Response<Session>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.update(&caller, request.into_inner()).await?))
    }

    async fn delete_session(
        &self,
        request: Request<DeleteSessionRequest>,
    ) -> Result<Response<DeleteSessionResponse>, Status> {
        let (account, kept) = self.admit(&Caller::of(&request)?)?;
        kept.delete(&account.id, &request.into_inner().session_id).await?;
        Ok(Response::new(DeleteSessionResponse { ok: true }))
    }

    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Result<Response<ListMessagesResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.messages(&caller, request.into_inner()).await?))
    }
}
