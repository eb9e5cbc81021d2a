// A user's ES module.
import express from 'express'
import * as root from 'inflight-limit'
import * as adaptive from 'inflight-limit/adaptive'
import * as forExpress from 'inflight-limit/express'
import * as forKoa from 'inflight-limit/koa'
import Koa from 'koa'
import { use } from './use.cjs'

console.log(JSON.stringify(await use({ root, forExpress, forKoa, adaptive, express, Koa })))
