//! `weft.orchestrator.v1.OpenAiService`.
use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt};
use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_proto::orchestrator::v1::open_ai_service_server::OpenAiService;
use weft_proto::orchestrator::v1::{
    ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest, CreateEmbeddingRequest, CreateEmbeddingResponse,
    GetOpenAiModelRequest, ListOpenAiModelsRequest, ListOpenAiModelsResponse, Model, OpenAiModel,
};

use super::openai_embedding;
use crate::api::account::Account;
use crate::api::chat::{Parts, refuse};
use crate::api::embedding::EmbeddingApi;
use crate::api::model::ModelApi;
use crate::completions::{Job, Params};
use crate::error::Error;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct OpenAiApi {
    /// What answers are made of.
    pub parts: Arc<Parts>,
    /// Which models there are.
    pub models: ModelApi,
    /// What makes vectors.
    pub embeddings: EmbeddingApi,
}

impl OpenAiApi {
    async fn admit(&self, request: Request<CreateChatCompletionRequest>, streamed: bool) -> Result<Job, Status> {
        let caller = Caller::of(&request)?;
        let params = Params::read(request.into_inner(), &self.parts.config, streamed)?;
        Job::admit(&self.parts, &caller, params).await.map_err(refuse)
    }
}

#[tonic::async_trait]
impl OpenAiService for OpenAiApi {
    async fn create_chat_completion(
        &self,
        request: Request<CreateChatCompletionRequest>,
    ) -> Result<Response<ChatCompletion>, Status> {
        let job = self.admit(request, false).await?;
        job.whole().await.map(Response::new).map_err(refuse)
    }

    type StreamChatCompletionStream = BoxStream<'static, Result<ChatCompletionChunk, Status>>;

    async fn stream_chat_completion(
        &self,
        request: Request<CreateChatCompletionRequest>,
    ) -> Result<Response<Self::StreamChatCompletionStream>, Status> {
        let job = self.admit(request, true).await?;
        Ok(Response::new(job.told().stream().boxed()))
    }

    async fn create_embedding(
        &self,
        request: Request<CreateEmbeddingRequest>,
    ) -> Result<Response<CreateEmbeddingResponse>, Status> {
        let account = Account::of(&Caller::of(&request)?)?;
        let (asked, format) = openai_embedding::read(request.into_inner())?;
        let made = self.embeddings.create(&account, asked).await.map_err(refuse)?;
        Ok(Response::new(openai_embedding::answer(made, format)))
    }

    async fn list_open_ai_models(
        &self,
        request: Request<ListOpenAiModelsRequest>,
    ) -> Result<Response<ListOpenAiModelsResponse>, Status> {
        let account = Account::of(&Caller::of(&request)?)?;
        let data = self.models.list(&account).await?.into_iter().map(told).collect();
        Ok(Response::new(ListOpenAiModelsResponse { object: "list".to_owned(), data }))
    }

    async fn get_open_ai_model(
        &self,
        request: Request<GetOpenAiModelRequest>,
    ) -> Result<Response<OpenAiModel>, Status> {
        let account = Account::of(&Caller::of(&request)?)?;
        let id = request.into_inner().model;
        let model = self.models.list(&account).await?.into_iter().find(|model| model.id == id);
        Ok(Response::new(told(model.ok_or(Error::NotFound("model"))?)))
    }
}

fn told(model: Model) -> OpenAiModel {
    OpenAiModel { id: model.id, object: "model".to_owned(), created: 0, owned_by: model.provider }
}
