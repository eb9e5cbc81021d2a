// @ts-nocheck - in the repository, there is no CommonJS build to check this against before there is any build.
// A user's CommonJS module.
const express = require('express')
const root = require('inflight-limit')
const adaptive = require('inflight-limit/adaptive')
const forExpress = require('inflight-limit/express')
const forKoa = require('inflight-limit/koa')
const Koa = require('koa')
const { use } = require('./use.cjs')

use({ root, forExpress, forKoa, adaptive, express, Koa }).then((result) =>
	console.log(JSON.stringify(result)),
)
