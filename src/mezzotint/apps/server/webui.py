from fastapi import APIRouter

router = APIRouter(prefix="/sdapi/v1")
